//! How the old and the new process speak: by an environment variable that says which descriptors
//! the new one has got, and by lines on a socket.
//!
//! The two may be of different versions of this crate, so what is here only ever grows.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use crossbeam_channel::{unbounded, Receiver};

use crate::os::spawn;

/// Its first line is `1 FD INODE`, the socket to speak on; then comes `FD FLAGS NAME` for each
/// listening socket, the flags being `s` for one whose path is not the program's to remove, `u` for one that is of a
/// socket unit of systemd, or `-`. The inode tells the one who was meant from its own children, who find
/// the variable, too.
pub(super) const VARIABLE: &str = "TOUCHDOWN_UPGRADE";

/// What the variable says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) control: RawFd,
    pub(super) inode: u64,
    pub(super) listeners: Vec<Listener>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) fd: RawFd,
    pub(super) name: String,
    /// The path of a unix socket is not the program's to remove.
    pub(super) path_stays: bool,
    /// Who may connect is not the program's to say.
    pub(super) of_unit: bool,
}

impl Passed {
    pub(super) fn encode(&self) -> String {
        let mut text = format!("1 {} {}", self.control, self.inode);
        for listener in &self.listeners {
            let name = listener.name.replace('%', "%25").replace('\n', "%0A");
            let flags = match (listener.path_stays, listener.of_unit) {
                (false, false) => "-",
                (true, false) => "s",
                (false, true) => "u",
                (true, true) => "su",
            };
            let _ = write!(text, "\n{} {flags} {name}", listener.fd);
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Passed> {
        let mut lines = text.split('\n');
        let mut first = lines.next()?.split(' ');
        // What a later version adds to the line is ignored.
        let ("1", control, inode) = (first.next()?, first.next()?, first.next()?) else {
            return None;
        };
        let listeners = lines.map(|line| {
            let (fd, rest) = line.split_once(' ')?;
            let (flags, name) = rest.split_once(' ')?;
            Some(Listener {
                fd: descriptor(fd)?,
                name: name.replace("%0A", "\n").replace("%25", "%"),
                path_stays: flags.contains('s'),
                of_unit: flags.contains('u'),
            })
        });
        Some(Passed {
            control: descriptor(control)?,
            inode: inode.parse().ok()?,
            listeners: listeners.collect::<Option<_>>()?,
        })
    }
}

fn descriptor(text: &str) -> Option<RawFd> {
    text.parse().ok().filter(|fd| *fd > 2)
}

/// A word of `ready`: the new process answers when it is asked how it is.
const ANSWERS: &str = "answers";

/// What one says to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The new process has started and passed its smoke test.
    Ready {
        /// Whether it answers [`Message::Ask`]. Earlier versions do not.
        answers: bool,
    },
    /// It has not, for this reason.
    Failed(String),
    /// It is not ready yet: it waits for this.
    Waits(String),
    /// It may accept connections.
    Serve,
    /// It is asked whether it still works, once it has served for a while.
    Ask,
    /// It does.
    Well,
    /// The old process is about to go: the new one is in charge.
    TakeOver,
    /// The new process is not wanted any more. TERM comes, too, if it has not begun to serve.
    Leave,
}

impl Message {
    fn encode(&self) -> String {
        match self {
            Message::Ready { answers: true } => format!("ready {ANSWERS}\n"),
            Message::Ready { answers: false } => "ready\n".to_owned(),
            Message::Failed(why) => format!("failed {}\n", why.replace(['\n', '\r'], " ")),
            Message::Waits(what) => format!("waits {}\n", what.replace(['\n', '\r'], " ")),
            Message::Serve => "serve\n".to_owned(),
            Message::Ask => "ask\n".to_owned(),
            Message::Well => "well\n".to_owned(),
            Message::TakeOver => "take-over\n".to_owned(),
            Message::Leave => "leave\n".to_owned(),
        }
    }

    fn decode(line: &str) -> Option<Message> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("ready", words) => Some(Message::Ready {
                answers: words.split(' ').any(|it| it == ANSWERS),
            }),
            ("failed", why) => Some(Message::Failed(why.to_owned())),
            ("waits", what) => Some(Message::Waits(what.to_owned())),
            ("serve", _) => Some(Message::Serve),
            ("ask", _) => Some(Message::Ask),
            ("well", _) => Some(Message::Well),
            ("take-over", _) => Some(Message::TakeOver),
            ("leave", _) => Some(Message::Leave),
            _ => None,
        }
    }
}

/// One end of the conversation.
pub(super) struct Control {
    socket: UnixStream,
    /// Disconnected once the other end is gone.
    heard: Receiver<Message>,
}

impl Control {
    pub(super) fn new(socket: UnixStream) -> io::Result<Control> {
        let lines = BufReader::new(socket.try_clone()?);
        let (sender, heard) = unbounded();
        std::thread::Builder::new()
            .name("td-upgrade-read".to_owned())
            .spawn(move || {
                // What a later version may say beside is ignored.
                let lines = lines.lines().map_while(Result::ok);
                for message in lines.filter_map(|line| Message::decode(&line)) {
                    if sender.send(message).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Control { socket, heard })
    }

    /// Does not wait. Fails if the other end is gone, and then `heard` says so as well; or if it stands still and has
    /// not read what it was told before.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        spawn::AtOnce(&self.socket).write_all(message.encode().as_bytes())
    }

    pub(super) fn heard(&self) -> &Receiver<Message> {
        &self.heard
    }

    /// Nothing more is heard: `say` fails at the other end from now on, so that each of the two knows whether the last
    /// word has come over. Returns what was not heard yet.
    pub(super) fn end_hearing(&self) -> impl Iterator<Item = Message> + '_ {
        // What has come is read yet; then the thread that reads is at the end.
        let _ = self.socket.shutdown(Shutdown::Read);
        self.heard.iter()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Ends the thread that reads.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_passed_arrives(
            control in 3..1_000_000,
            inode: u64,
            listeners in proptest::collection::vec(
                (3..1_000_000, "[^\0]*", any::<bool>(), any::<bool>()),
                0..5,
            ),
        ) {
            let listener =
                |(fd, name, path_stays, of_unit)| Listener { fd, name, path_stays, of_unit };
            let listeners = listeners.into_iter().map(listener).collect();
            let passed = Passed { control, inode, listeners };
            prop_assert_eq!(Passed::decode(&passed.encode()), Some(passed));
        }

        #[test]
        fn whatever_the_variable_holds_is_read_or_refused(text in ".*") {
            let _ = Passed::decode(&text);
        }

        #[test]
        fn what_is_said_is_heard(answers: bool) {
            use Message::{Ask, Leave, Ready, Serve, TakeOver, Well};
            for message in [Ready { answers }, Serve, Ask, Well, TakeOver, Leave] {
                let line = message.encode();
                prop_assert_eq!(Message::decode(line.trim_end_matches('\n')), Some(message));
            }
        }

        #[test]
        fn a_reason_stays_one_line(why: String) {
            let line = Message::Failed(why).encode();
            prop_assert_eq!(line.matches('\n').count(), 1);
            let decoded = Message::decode(line.trim_end_matches('\n'));
            prop_assert!(matches!(decoded, Some(Message::Failed(_))), "{decoded:?}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let passed = Passed::decode("1 3 77 more\n4 -x 127.0.0.1:0");
        let listeners = vec![Listener {
            fd: 4,
            name: "127.0.0.1:0".to_owned(),
            path_stays: false,
            of_unit: false,
        }];
        assert_eq!(
            passed,
            Some(Passed {
                control: 3,
                inode: 77,
                listeners
            })
        );
        assert_eq!(Passed::decode("2 3 77"), None);
        let answers = false;
        assert_eq!(
            Message::decode("ready in 3 ms"),
            Some(Message::Ready { answers })
        );
        assert_eq!(Message::decode("progress 7"), None);
    }
}
