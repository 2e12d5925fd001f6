//! The numbers of linux/netfilter/nf_tables.h, and which attributes of each kind of thing are copied.

pub(super) const NEWTABLE: u16 = 0;
pub(super) const GETTABLE: u16 = 1;
pub(super) const NEWCHAIN: u16 = 3;
pub(super) const GETCHAIN: u16 = 4;
pub(super) const NEWRULE: u16 = 6;
pub(super) const GETRULE: u16 = 7;
pub(super) const NEWSET: u16 = 9;
pub(super) const GETSET: u16 = 10;
pub(super) const NEWSETELEM: u16 = 12;
pub(super) const GETSETELEM: u16 = 13;
pub(super) const DELSETELEM: u16 = 14;
pub(super) const GETGEN: u16 = 16;
pub(super) const NEWOBJ: u16 = 18;
pub(super) const GETOBJ: u16 = 19;
pub(super) const NEWFLOWTABLE: u16 = 22;
pub(super) const GETFLOWTABLE: u16 = 23;

pub(super) const NFTA_GEN_ID: u16 = 1;
/// In every kind of object: its table, and what it is called within.
pub(super) const TABLE: u16 = 1;
pub(super) const NAME: u16 = 2;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
pub(super) const NFT_TABLE_F_OWNER: u32 = 2;
pub(super) const NFT_TABLE_F_PERSIST: u32 = 4;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_CHAIN_USERDATA: u16 = 12;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_COMPAT: u16 = 5;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFT_SET_ANONYMOUS: u32 = 1;
pub(super) const NFT_SET_INTERVAL: u32 = 4;
pub(super) const NFT_SET_EVAL: u32 = 0x20;
pub(super) const NFT_SET_CONCAT: u32 = 0x80;
/// Everything of a set but its handle, its number and how many elements it has.
pub(super) const OF_SETS: [u16; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18];
/// Everything of an object but its handle and how often it is used.
pub(super) const OF_OBJECTS: [u16; 5] = [1, 2, 3, 4, 8];
/// Everything of a flowtable but its handle, how often it is used, and offloading to hardware.
pub(super) const OF_FLOWTABLES: [u16; 3] = [1, 2, 3];
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
