//! What the door does with what strangers send, without sockets and with them.

mod clients;
mod requests;
mod sockets;
mod stops;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::client::Duplex;

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Panics unless this is one whole answer, and nothing beside it.
    pub(super) fn read(bytes: &[u8], is_head: bool) -> Answer {
        let text = String::from_utf8_lossy(bytes);
        let end = text.find("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let (head, body) = (text[..end].to_owned(), &bytes[end + 4..]);
        let status = head.strip_prefix("HTTP/1.1 ").expect("a status line");
        let status = status[..3].parse().unwrap();
        let length = head
            .lines()
            .find_map(|it| it.strip_prefix("Content-Length: "));
        let length: usize = length.expect("a length").parse().unwrap();
        let written = if is_head { 0 } else { length };
        assert_eq!(body.len(), written, "{head}");
        for line in head.lines() {
            assert!(!line.contains(char::is_control), "{head}");
        }
        let body = body.to_owned();
        Answer { status, head, body }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(super) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|it| it == line)
    }
}

/// What a client without a socket does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Sends(Vec<u8>),
    Ends,
    Resets,
}

/// A client without a socket: acts in turn, and takes so many bytes at a time, if any.
#[derive(Clone)]
pub(super) struct Script {
    acts: Rc<RefCell<VecDeque<Act>>>,
    takes: usize,
    pub(super) taken: Rc<RefCell<Vec<u8>>>,
    pub(super) has_end: Rc<RefCell<bool>>,
}

impl Script {
    pub(super) fn new(acts: impl IntoIterator<Item = Act>, takes: usize) -> Script {
        Script {
            acts: Rc::new(RefCell::new(acts.into_iter().collect())),
            takes,
            taken: Rc::default(),
            has_end: Rc::default(),
        }
    }

    pub(super) fn act(&self, act: Act) {
        self.acts.borrow_mut().push_back(act);
    }

    pub(super) fn is_through(&self) -> bool {
        self.acts.borrow().is_empty()
    }

    pub(super) fn answer(&self) -> Answer {
        Answer::read(&self.taken.borrow(), false)
    }
}

impl Duplex for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut acts = self.acts.borrow_mut();
        match acts.pop_front() {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(Act::Ends) => {
                acts.push_front(Act::Ends);
                Ok(0)
            }
            Some(Act::Resets) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Act::Sends(mut bytes)) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                bytes.drain(..length);
                if !bytes.is_empty() {
                    acts.push_front(Act::Sends(bytes));
                }
                match length {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    length => Ok(length),
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!*self.has_end.borrow(), "written after the end");
        match bytes.len().min(self.takes) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => {
                self.taken.borrow_mut().extend_from_slice(&bytes[..length]);
                Ok(length)
            }
        }
    }

    fn end_output(&mut self) -> io::Result<()> {
        assert!(!self.has_end.replace(true), "ended twice");
        Ok(())
    }
}
