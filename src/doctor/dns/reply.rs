//! What comes back for a question, read: a datagram, or a stream with the length before the message (RFC 1035 §4.2).
//!
//! It reads at most one message, and never takes for an answer what does not repeat the question, or is the question
//! itself, sent back.

use std::io;

use hickory_net::proto::op::{Message, MessageType};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a datagram is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// The answer; it may be cut short.
    Answer(Box<Message>),
    /// It has the question's number and cannot be read.
    Garbage,
    /// Somebody's guess, or a late answer to nobody.
    Stray,
}

/// Reads a datagram from the server that was asked.
pub fn of_datagram(octets: &[u8], asked: &Message) -> Datagram {
    match Message::from_vec(octets) {
        Ok(answer) if answers(&answer, asked) => Datagram::Answer(Box::new(answer)),
        Err(_) if octets.starts_with(&asked.metadata.id.to_be_bytes()) => Datagram::Garbage,
        Ok(_) | Err(_) => Datagram::Stray,
    }
}

/// Reads one message from a connection to the server that was asked; `None` if it is no answer.
///
/// # Errors
/// The stream's own, and [`io::ErrorKind::UnexpectedEof`] where less came than the length says.
pub async fn from_stream(
    mut stream: impl AsyncRead + Unpin,
    asked: &Message,
) -> io::Result<Option<Message>> {
    let mut octets = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut octets).await?;
    let answer = Message::from_vec(&octets).ok();
    Ok(answer.filter(|answer| answers(answer, asked)))
}

/// Whether this is an answer to that. Servers that could not read a question leave it out.
fn answers(answer: &Message, asked: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == asked.metadata.id
        && (answer.queries == asked.queries || answer.queries.is_empty())
}

#[cfg(test)]
mod tests {
    use hickory_net::proto::op::Query;
    use hickory_net::proto::rr::{Name, RecordType};

    use super::*;

    fn question() -> Message {
        let mut message = Message::query();
        message.metadata.id = 0x1234;
        let name = Name::from_ascii("a.test.").unwrap();
        message.add_query(Query::query(name, RecordType::A));
        message
    }

    #[tokio::test]
    async fn a_question_that_is_sent_back_is_no_answer() {
        let asked = question();
        let echo = asked.to_vec().unwrap();
        assert_eq!(of_datagram(&echo, &asked), Datagram::Stray);
        let framed = [&29u16.to_be_bytes()[..], &echo].concat();
        assert_eq!(framed.len(), 2 + 24, "the length says more than there is");
        let cut = from_stream(framed.as_slice(), &asked).await;
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let framed = [&24u16.to_be_bytes()[..], &echo].concat();
        assert_eq!(from_stream(framed.as_slice(), &asked).await.unwrap(), None);
        // The bit that makes a response of it (RFC 1035 §4.1.1).
        let mut octets = echo;
        octets[2] |= 0x80;
        let Datagram::Answer(answer) = of_datagram(&octets, &asked) else {
            panic!("{octets:?}");
        };
        assert_eq!(answer.queries, asked.queries);
        let framed = [&24u16.to_be_bytes()[..], &octets, b"and more"].concat();
        let by_stream = from_stream(framed.as_slice(), &asked).await.unwrap();
        assert_eq!(by_stream, Some(*answer));
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_is_none_of_ours() {
        let asked = question();
        assert_eq!(of_datagram(b"\x12\x34\x81", &asked), Datagram::Garbage);
        assert_eq!(of_datagram(b"\x12\x35\x81", &asked), Datagram::Stray);
        assert_eq!(of_datagram(b"", &asked), Datagram::Stray);
        let mut other = question().to_vec().unwrap();
        other[2] |= 0x80;
        other[13] = b'b';
        assert_eq!(of_datagram(&other, &asked), Datagram::Stray);
    }
}
