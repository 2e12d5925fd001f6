//! What the keys of a terminal send, as this screen understands it. Pure.
//!
//! A terminal sends a key as a character or as a sequence that begins with ESC (ECMA-48 §5.4; the keys'
//! own are those of xterm's ctlseqs). The Escape key alone is that first octet, so what is read at once
//! decides: ESC with nothing behind it is the key.

/// How many lines a page key moves.
const PAGE: isize = 10;
/// A sequence that is longer is none that is known; it is thrown away.
const LONGEST: usize = 32;
const ESC: u8 = 0x1b;

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Leave,
    /// So many lines down, or up.
    Scroll(isize),
}

/// Keys out of octets, however they are cut.
#[derive(Debug, Default)]
pub struct Keys {
    /// The beginning of a sequence that has not ended.
    begun: Vec<u8>,
}

impl Keys {
    /// What was read at once; gives the keys that mean something. `is_cut` if there may have been no room
    /// for what stands behind it.
    pub fn read(&mut self, bytes: &[u8], is_cut: bool) -> Vec<Key> {
        let mut keys: Vec<Key> = bytes.iter().filter_map(|byte| self.next(*byte)).collect();
        if self.begun == [ESC] && !is_cut {
            self.begun.clear();
            keys.push(Key::Leave);
        }
        keys
    }

    fn next(&mut self, byte: u8) -> Option<Key> {
        if self.begun.is_empty() && byte != ESC {
            return alone(byte);
        }
        if byte == ESC {
            // A sequence never holds one: what began is given up.
            self.begun.clear();
        }
        self.begun.push(byte);
        match *self.begun.as_slice() {
            [ESC] | [ESC, b'[' | b'O'] => None,
            // ECMA-48 §5.4: parameters and what stands between, up to a final octet.
            [ESC, b'[', .., 0x20..=0x3f] if self.begun.len() < LONGEST => None,
            [ESC, b'[' | b'O', ref rest @ ..] => {
                let key = sequence(rest);
                self.begun.clear();
                key
            }
            // Alt and a key.
            _ => {
                self.begun.clear();
                None
            }
        }
    }
}

fn alone(byte: u8) -> Option<Key> {
    match byte {
        // Control and C or D: in raw mode they are keys like others.
        3 | 4 | b'q' => Some(Key::Leave),
        b'k' => Some(Key::Scroll(-1)),
        b'j' => Some(Key::Scroll(1)),
        b' ' => Some(Key::Scroll(PAGE)),
        _ => None,
    }
}

/// What follows `ESC [` or `ESC O`.
fn sequence(rest: &[u8]) -> Option<Key> {
    match rest {
        b"A" => Some(Key::Scroll(-1)),
        b"B" => Some(Key::Scroll(1)),
        b"5~" => Some(Key::Scroll(-PAGE)),
        b"6~" => Some(Key::Scroll(PAGE)),
        b"H" | b"1~" | b"7~" => Some(Key::Scroll(isize::MIN)),
        b"F" | b"4~" | b"8~" => Some(Key::Scroll(isize::MAX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn q_escape_and_control_c_leave_and_a_c_alone_does_not() {
        for (bytes, means) in [
            (&b"q"[..], &[Key::Leave][..]),
            (b"\x1b", &[Key::Leave]),
            (b"\x03", &[Key::Leave]),
            (b"c", &[]),
            (b"\x1b[B", &[Key::Scroll(1)]),
            (b"\x1bOA", &[Key::Scroll(-1)]),
            (b"\x1b[6~\x1b[5~", &[Key::Scroll(PAGE), Key::Scroll(-PAGE)]),
            (
                b"\x1b[H\x1b[4~",
                &[Key::Scroll(isize::MIN), Key::Scroll(isize::MAX)],
            ),
            // With a modifier, of a mouse, unknown: nothing, and the next key counts.
            (b"\x1b[1;5B\x1b[<0;3;4Mj", &[Key::Scroll(1)]),
            (b"\x1bxj", &[Key::Scroll(1)]),
            // A sequence that is broken off, and the key itself after it.
            (b"\x1b[1\x1b", &[Key::Leave]),
        ] {
            assert_eq!(Keys::default().read(bytes, false), means, "{bytes:?}");
        }
    }

    #[test]
    fn a_sequence_may_come_in_parts_after_its_first_two_octets() {
        let mut keys = Keys::default();
        assert_eq!(keys.read(b"\x1b[", false), []);
        assert_eq!(keys.read(b"6", false), []);
        assert_eq!(keys.read(b"~", false), [Key::Scroll(PAGE)]);
    }

    #[test]
    fn escape_at_the_end_of_what_had_room_is_no_key_yet() {
        let mut keys = Keys::default();
        assert_eq!(keys.read(b"\x1b[B\x1b", true), [Key::Scroll(1)]);
        assert_eq!(keys.read(b"[A", false), [Key::Scroll(-1)]);
    }

    proptest! {
        #[test]
        fn whatever_was_sent_q_is_understood_soon_after(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut keys = Keys::default();
            keys.read(&noise, false);
            // It may end what began; a second one does not.
            let both = [keys.read(b"q", false), keys.read(b"q", false)].concat();
            prop_assert!(both.contains(&Key::Leave));
        }
    }
}
