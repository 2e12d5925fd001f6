//! Over real sockets on loopback: a peer and a server at the ends, the relay between them.

use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::thread::{self, JoinHandle};

use super::*;

/// Long enough for a busy machine, and never waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// What moves in the tests of bulk data: more than pipes and sockets hold by far.
const BULK: usize = 24 * 1024 * 1024;

/// A connection: the far end, blocking, and the near one, the relay's.
fn pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let far = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    near.set_nonblocking(true).unwrap();
    (far, near)
}

/// The two far ends of a relay that runs.
struct Rig {
    peer: StdStream,
    server: StdStream,
    relay: JoinHandle<Relayed>,
}

fn relaying(first: &[u8], idle: Duration, pipes: &'static Pipes) -> Rig {
    let (peer, near_peer) = pair();
    let (server, near_server) = pair();
    let first = first.to_vec();
    let relay = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let peer = TcpStream::from_std(near_peer).unwrap();
            let server = TcpStream::from_std(near_server).unwrap();
            relay(&peer, &server, first, idle, pipes).await
        })
    });
    Rig {
        peer,
        server,
        relay,
    }
}

fn pipes(max: usize) -> &'static Pipes {
    Box::leak(Box::new(Pipes::with_max(max)))
}

/// Bytes of which no two windows look alike.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 24).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn read_all(mut from: &StdStream) -> Vec<u8> {
    let mut all = Vec::new();
    from.read_to_end(&mut all).unwrap();
    all
}

fn expect(mut from: &StdStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    from.read_exact(&mut bytes).unwrap();
    assert!(bytes == expected, "other bytes than were sent");
}

fn say(mut to: &StdStream, bytes: &[u8]) {
    to.write_all(bytes).unwrap();
}

fn reset(stream: StdStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

fn size_of_output<'a, F>(
    _: fn(&'a TcpStream, &'a TcpStream, Vec<u8>, Duration, &'a Pipes) -> F,
) -> usize {
    std::mem::size_of::<F>()
}

#[test]
fn a_relayed_connection_stays_small() {
    let bytes = size_of_output(relay);
    println!("{bytes} octets");
    assert!(bytes <= 512, "{bytes} octets per relayed connection");
}

#[test]
fn what_was_read_before_goes_first_and_each_end_is_carried_over_alone() {
    let rig = relaying(b"hello ", PATIENCE, pipes(1));
    say(&rig.peer, b"world");
    expect(&rig.server, b"hello world");
    say(&rig.server, b"and you");
    expect(&rig.peer, b"and you");
    // The peer has said everything, and the server has not: only the one direction ends.
    rig.peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&rig.server), b"");
    say(&rig.server, b", still here");
    expect(&rig.peer, b", still here");
    drop(rig.server);
    assert_eq!(read_all(&rig.peer), b"");
    assert_eq!(
        rig.relay.join().unwrap(),
        Relayed {
            to_server: 11,
            to_peer: 19,
            end: End::Closed
        }
    );
}

#[test]
fn a_server_that_ends_first_still_hears_the_peer_out() {
    let rig = relaying(b"", PATIENCE, pipes(1));
    say(&rig.server, b"that is all");
    rig.server.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&rig.peer), b"that is all");
    say(&rig.peer, b"goodbye");
    expect(&rig.server, b"goodbye");
    drop(rig.peer);
    assert_eq!(read_all(&rig.server), b"");
    assert_eq!(rig.relay.join().unwrap().end, End::Closed);
}

fn bulk_both_ways(pipes: &'static Pipes) {
    let (up, down) = (pattern(BULK, 1), pattern(BULK, 2));
    let first = up[..100_000].to_vec();
    let rig = relaying(&first, PATIENCE, pipes);
    let (peer, server) = (&rig.peer, &rig.server);
    thread::scope(|scope| {
        scope.spawn(|| {
            say(peer, &up[first.len()..]);
            peer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        scope.spawn(|| {
            say(server, &down);
            server.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let heard = scope.spawn(|| read_all(server));
        assert!(read_all(peer) == down, "other bytes than were sent");
        assert!(heard.join().unwrap() == up, "other bytes than were sent");
    });
    assert_eq!(
        rig.relay.join().unwrap(),
        Relayed {
            to_server: BULK as u64,
            to_peer: BULK as u64,
            end: End::Closed
        }
    );
}

#[test]
fn bulk_data_goes_through_pipes_both_ways_at_once() {
    let pipes = pipes(2);
    bulk_both_ways(pipes);
    let (open, idle) = pipes.count();
    assert!(open > 0 && idle == open, "{idle} of {open} came back");
}

#[test]
fn bulk_data_is_copied_where_there_is_no_pipe() {
    let pipes = pipes(0);
    bulk_both_ways(pipes);
    assert_eq!(pipes.count(), (0, 0));
}

#[test]
fn one_pipe_serves_two_directions_in_turns_or_one_copies() {
    let pipes = pipes(1);
    bulk_both_ways(pipes);
    assert_eq!(pipes.count(), (1, 1));
}

#[test]
fn flights_that_wait_for_each_other_all_arrive() {
    let pipes = pipes(2);
    let rig = relaying(b"", PATIENCE, pipes);
    let flight = pattern(1024 * 1024 + 17, 6);
    // Each flight waits for the word that the one before has come, as a protocol's would.
    for _ in 0..100 {
        thread::scope(|scope| {
            scope.spawn(|| say(&rig.server, &flight));
            expect(&rig.peer, &flight);
        });
        say(&rig.peer, b"next");
        expect(&rig.server, b"next");
    }
    assert_eq!(pipes.count(), (1, 1), "a pipe was used");
}

/// Waits until `rig` takes nothing more from the peer.
fn fill(rig: &Rig) -> usize {
    let (mut sent, mut quiet) = (0, 0);
    let chunk = pattern(64 * 1024, 3);
    let short = Some(Duration::from_millis(100));
    rig.peer.set_write_timeout(short).unwrap();
    while quiet < 5 {
        match (&rig.peer).write(&chunk) {
            Ok(length) => (sent, quiet) = (sent + length, 0),
            Err(_) => quiet += 1,
        }
    }
    sent
}

#[test]
fn a_server_that_takes_nothing_stops_the_peer() {
    let pipes = pipes(4);
    let rig = relaying(b"", PATIENCE, pipes);
    let before = fill(&rig);
    // What four sockets' buffers can hold at most (net.ipv4.tcp_rmem, tcp_wmem), and one pipe.
    assert!(before < 64 * 1024 * 1024, "{before} octets were taken");
    assert_eq!(pipes.count(), (1, 0), "it is held: bytes are in it");
    assert_eq!(fill(&rig), 0, "and nothing more is taken");
    // Nothing was lost by the wait.
    let server = rig.server.try_clone().unwrap();
    let heard = thread::spawn(move || read_all(&server).len());
    rig.peer.shutdown(std::net::Shutdown::Write).unwrap();
    drop(rig.server);
    assert_eq!(heard.join().unwrap(), before);
}

#[test]
fn a_pipe_is_returned_as_soon_as_nothing_moves() {
    let pipes = pipes(4);
    let rig = relaying(b"", PATIENCE, pipes);
    let up = pattern(4 * 1024 * 1024, 4);
    thread::scope(|scope| {
        scope.spawn(|| say(&rig.peer, &up));
        expect(&rig.server, &up);
    });
    // The relay waits for the peer again, once it has answered this.
    say(&rig.server, b"done");
    expect(&rig.peer, b"done");
    assert_eq!(pipes.count(), (1, 1), "idle, while the connection is held");
    drop((rig.peer, rig.server));
    assert_eq!(rig.relay.join().unwrap().to_server, up.len() as u64);
}

#[test]
fn a_pipe_with_somebodys_bytes_is_never_lent_again() {
    let pipes = pipes(4);
    let rig = relaying(b"", Duration::from_secs(1), pipes);
    fill(&rig);
    // The relay gives up, its pipe full: that pipe is closed, not kept.
    assert_eq!(rig.relay.join().unwrap().end, End::Idle);
    assert_eq!(pipes.count(), (0, 0));
}

#[test]
fn a_connection_on_which_nothing_moves_ends() {
    let idle = Duration::from_millis(300);
    let rig = relaying(b"hello", idle, pipes(1));
    let start = std::time::Instant::now();
    expect(&rig.server, b"hello");
    // Movement in either direction keeps both.
    for _ in 0..6 {
        thread::park_timeout(idle / 3);
        say(&rig.server, b".");
        expect(&rig.peer, b".");
    }
    assert_eq!(rig.relay.join().unwrap().end, End::Idle);
    assert!(start.elapsed() >= idle * 2, "{:?}", start.elapsed());
    assert_eq!(read_all(&rig.peer), b"");
    assert_eq!(read_all(&rig.server), b"");
}

#[test]
fn a_peer_that_breaks_off_is_told_to_the_server_as_such() {
    let rig = relaying(b"hello", PATIENCE, pipes(1));
    expect(&rig.server, b"hello");
    reset(rig.peer);
    assert_eq!(rig.relay.join().unwrap().end, End::PeerReset);
    let error = (&rig.server).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_a_server_said_before_it_broke_off_reaches_the_peer() {
    let rig = relaying(b"", PATIENCE, pipes(1));
    // A server that refuses a large request: it answers, and resets with most of it unread.
    say(&rig.peer, &[b'x'; 1000]);
    expect(&rig.server, b"x");
    say(&rig.server, b"too large");
    drop(rig.server);
    assert_eq!(read_all(&rig.peer), b"too large");
    assert_eq!(rig.relay.join().unwrap().end, End::ServerReset);
}

#[test]
fn a_dropped_relay_leaves_nothing_behind() {
    let pipes = pipes(1);
    let (peer, near_peer) = pair();
    let (server, near_server) = pair();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let near_peer = TcpStream::from_std(near_peer).unwrap();
        let near_server = TcpStream::from_std(near_server).unwrap();
        let relay = relay(&near_peer, &near_server, Vec::new(), PATIENCE, pipes);
        let cut = tokio::time::timeout(Duration::from_millis(500), relay);
        let writer = thread::spawn(move || {
            let chunk = pattern(1 << 20, 5);
            // It takes nothing any more at some point, and then it is gone.
            while (&peer).write(&chunk).is_ok() {}
        });
        assert!(cut.await.is_err());
        assert_eq!(pipes.count(), (0, 0), "it held bytes and is closed");
        drop((near_peer, near_server));
        writer.join().unwrap();
    });
    let mut heard = Vec::new();
    // Cut anywhere, but whole up to there.
    let _ = (&server).read_to_end(&mut heard);
    let chunk = pattern(1 << 20, 5);
    assert!(heard.len() > 64 * 1024);
    assert!(heard.chunks(1 << 20).all(|part| chunk.starts_with(part)));
}

#[test]
fn a_stock_has_a_bound_and_lends_what_comes_back() {
    let pipes = Pipes::with_max(2);
    let first = pipes.lend().unwrap();
    let second = pipes.lend().unwrap();
    assert_eq!(pipes.lend().err(), Some(NoPipe::AllLent));
    drop(first);
    assert_eq!(pipes.count(), (2, 1));
    let third = pipes.lend().unwrap();
    assert_eq!(pipes.count(), (2, 0));
    drop((second, third));
    assert_eq!(pipes.count(), (2, 2));
}
