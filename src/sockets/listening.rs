//! What a server listens on, as a whole, and what is decided about it from other threads: whether
//! anything is accepted yet, and whether somebody else listens there from now on.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::inherited::Inherited;
use super::listener::{Accepted, Listener};
use super::unix_path::SocketPath;

pub(crate) struct Listening {
    listeners: Vec<Listener>,
    accepting: bool,
    /// A successor listens, too, and accepts what this server does not.
    handed_over: bool,
    /// Connections that the program has made by [`connect`](Self::connect).
    given: Vec<Accepted>,
    closed: bool,
    /// What was left to somebody else as this server ended to listen.
    left: Vec<SocketPath>,
}

impl Listening {
    pub(crate) fn new(listeners: Vec<Listener>, accepting: bool) -> Listening {
        let mut listening = Listening {
            listeners,
            accepting: false,
            handed_over: false,
            given: Vec::new(),
            closed: false,
            left: Vec::new(),
        };
        if accepting {
            listening.accept();
            listening.own_paths();
        }
        listening
    }

    /// From now on connections are accepted.
    pub(crate) fn accept(&mut self) {
        self.accepting = true;
    }

    /// From now on the paths of unix sockets are this server's, which removes them if it has ended to
    /// listen.
    pub(crate) fn own_paths(&mut self) {
        self.listeners.iter_mut().for_each(Listener::own_path);
        self.left.drain(..).for_each(SocketPath::remove);
    }

    /// The sockets for a successor. Nothing changes for this server.
    pub(crate) fn hand_over(&self) -> io::Result<Vec<Inherited>> {
        if self.closed {
            return Err(closed());
        }
        self.listeners.iter().map(Listener::hand_over).collect()
    }

    /// The sockets that this process has bound itself, for a store that outlives it. The paths of unix
    /// sockets stay from now on.
    #[cfg(feature = "systemd")]
    pub(crate) fn store(&mut self) -> io::Result<Vec<Inherited>> {
        if self.closed {
            return Err(closed());
        }
        let bound = self.listeners.iter_mut().filter(|it| !it.is_inherited());
        bound
            .map(|listener| {
                let socket = listener.hand_over()?;
                listener.keep_path();
                Ok(socket)
            })
            .collect()
    }

    /// Sets whether the sockets are a successor's, who accepts.
    pub(crate) fn set_handed_over(&mut self, handed_over: bool) {
        self.handed_over = handed_over;
        match handed_over {
            true => self.listeners.iter_mut().for_each(Listener::leave_path),
            false => self.own_paths(),
        }
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    /// Makes a connection to this server without any of its sockets.
    pub(crate) fn connect(&mut self) -> io::Result<OwnedFd> {
        if self.closed {
            return Err(closed());
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.given.push(Accepted::from_unix(ours)?);
        Ok(theirs.into())
    }

    pub(crate) fn take_given(&mut self) -> Vec<Accepted> {
        std::mem::take(&mut self.given)
    }

    /// The sockets on which connections are to be waited for.
    pub(crate) fn waited_for(&self) -> impl Iterator<Item = RawFd> + '_ {
        let accepting = self.accepting && !self.handed_over;
        let listeners = self.listeners.iter().filter(move |_| accepting);
        listeners.map(Listener::as_raw_fd)
    }

    /// How many sockets have a queue of connections that is this server's to empty.
    pub(crate) fn own_queues(&self) -> usize {
        match self.accepting && !self.handed_over {
            true => self.listeners.len(),
            false => 0,
        }
    }

    pub(crate) fn accept_from(&self, index: usize) -> io::Result<Option<Accepted>> {
        match self.listeners.get(index) {
            Some(listener) => listener.accept(),
            None => Ok(None),
        }
    }

    /// Ends listening, for good. Returns the connections that were given and not yet taken.
    pub(crate) fn close(&mut self) -> Vec<Accepted> {
        self.closed = true;
        let listeners = self.listeners.drain(..);
        self.left.extend(listeners.filter_map(Listener::end));
        self.take_given()
    }
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the server has stopped to listen",
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::fs::OpenOptionsExt;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use crate::calls::transport::Settings;
    use crate::calls::{Call, Config, Host, Landed, Limit, Message, Runner};
    use crate::engine;
    use crate::sockets::listener::{ListenOptions, Listener};

    const LONG: Duration = Duration::from_secs(20);

    /// How an HTTP/2 client begins: the preface, and empty settings. RFC 9113, 3.4.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// Has no methods, so it has nothing to run.
    struct Idle(crossbeam_channel::Sender<()>);

    impl Host for Idle {
        fn arrived(&self) {}
        fn run(&self, _: &Arc<Call>, _: Option<Message>) {}
        fn refused(&self, _: &Arc<Call>) {}
        fn landed(&self, _: &Arc<Call>, _: Landed) {}
        fn in_flight(&self) -> usize {
            0
        }
        fn sent(&self, _: &Arc<Call>) {}
        fn clients_know(&self) {}
        fn cut(&self, _: u64, _: u64) {}
        fn drained(&self) {
            let _ = self.0.send(());
        }
    }

    fn listen(address: &str) -> Vec<Listener> {
        Listener::bind_all(&[ListenOptions::new(address.to_owned())]).unwrap()
    }

    /// An engine that does not accept yet, and a channel that has something once it is drained.
    fn start(listeners: Vec<Listener>) -> (Runner, crossbeam_channel::Receiver<()>) {
        let (drained, is_drained) = crossbeam_channel::unbounded();
        let config = Config {
            methods: Vec::new(),
            listeners,
            accepting: false,
            workers: 1,
            stack_size: None,
            backlog: 1,
            backlog_bytes: 1,
            prompt_calls: 1,
            connections: 10,
            unanswered: LONG,
            handshake: LONG,
        };
        let settings = Settings {
            concurrent_streams: 100,
            metadata_size: 16 << 10,
            keepalive_interval: LONG,
            keepalive_timeout: LONG,
            memory: 16 << 20,
        };
        let transport = engine::transport(&settings, &[]).unwrap();
        let engine = Runner::start(transport, config, Arc::new(Idle(drained))).unwrap();
        (engine, is_drained)
    }

    /// Whether somebody speaks HTTP/2 there: a server begins with its settings.
    fn is_served(mut socket: impl Read + Write) -> bool {
        let mut header = [0; 9];
        socket.write_all(PREFACE).unwrap();
        socket.read_exact(&mut header).is_ok() && header[3] == 4
    }

    /// When its clients have left: C-core's end, which the next test would wait for, takes ten seconds
    /// if there is something that they do not take.
    fn stop(engine: &Runner) {
        let deadline = Instant::now() + LONG;
        while engine.connections() > 0 {
            assert!(Instant::now() < deadline, "a connection stays");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(engine.stop(Instant::now() + LONG), "it stops");
    }

    #[test]
    fn nothing_but_its_own_connections_is_served_before_it_accepts() {
        let (engine, _) = start(listen("127.0.0.1:0"));
        let address = engine.addresses()[0].to_string();
        let public = TcpStream::connect(address).unwrap();
        let own = std::os::unix::net::UnixStream::from(engine.connect().unwrap());
        assert!(is_served(&own));
        assert_eq!(
            engine.connections(),
            1,
            "the public one waits in the kernel"
        );
        engine.accept();
        assert!(is_served(&public));
        drop((own, public));
        stop(&engine);
        let refused = [engine.connect().err(), engine.hand_over().err()];
        for error in refused.map(|it| it.unwrap().kind()) {
            assert_eq!(error, std::io::ErrorKind::NotConnected);
        }
    }

    #[test]
    fn a_successor_serves_what_the_old_one_has_not_accepted() {
        let path = std::env::temp_dir().join(format!("touchdown-{}-old.sock", std::process::id()));
        let address = format!("unix:{}", path.display());
        let (old, is_drained) = start(listen(&address));
        let mut handed = old.hand_over().unwrap();
        let (new, _) = start(super::Listener::bind_from(&address, &mut handed).unwrap());
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        new.accept();
        assert!(is_served(&client));
        drop(client);
        old.accept();
        old.own_paths();
        old.set_handed_over(true);
        new.own_paths();
        let limit = Limit {
            at: None,
            cut: false,
        };
        let times = crate::calls::DrainTimes {
            grace_period: LONG,
            peer_silence: LONG,
        };
        old.drain([limit], times);
        is_drained.recv_timeout(LONG).unwrap();
        stop(&old);
        assert!(is_served(
            std::os::unix::net::UnixStream::connect(&path).unwrap()
        ));
        stop(&new);
        assert!(!path.exists(), "the successor's end is the path's end");
    }

    #[test]
    fn the_queue_is_the_successors_once_it_was_handed_over() {
        let mut listening = super::Listening::new(listen("127.0.0.1:0"), false);
        assert_eq!(listening.own_queues(), 0);
        listening.accept();
        assert_eq!(listening.own_queues(), 1);
        listening.set_handed_over(true);
        assert_eq!(listening.own_queues(), 0);
        assert_eq!(listening.waited_for().count(), 0);
        listening.set_handed_over(false);
        assert_eq!(listening.own_queues(), 1, "it came back");
    }

    #[test]
    fn a_path_that_was_left_to_nobody_goes_after_the_end_of_listening() {
        let name = format!("touchdown-{}-left.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let address = format!("unix:{}", path.display());
        let left = || {
            let mut listening = super::Listening::new(listen(&address), true);
            listening.set_handed_over(true);
            listening.close();
            assert!(path.exists());
            listening
        };
        left().set_handed_over(false);
        assert!(!path.exists());
        let mut old = left();
        // So that the next one has another inode.
        let _first = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(&path)
            .unwrap();
        let others = super::Listening::new(listen(&address), true);
        old.set_handed_over(false);
        assert!(path.exists(), "somebody else listens there by now");
        drop(others);
        assert!(!path.exists());
    }
}
