//! Listens: reads the Internet's bytes and holds no power.
