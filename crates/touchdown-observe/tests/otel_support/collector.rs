//! A collector: it takes what HTTP has of a request, and answers as the test says.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use super::spans::Span;
use super::LONG;

/// What came, on which connection.
#[derive(Debug)]
pub struct Request {
    pub connection: usize,
    /// The first line, and the headers in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

/// What goes back for the request of this number, counted from 0.
pub type Reply = dyn Fn(usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

pub struct Collector {
    address: SocketAddr,
    requests: Receiver<Request>,
    /// Spans that were received, and not yet asked for.
    spans: RefCell<Vec<Span>>,
    is_over: Arc<AtomicBool>,
    /// As long as it is there, replies may hang.
    _hanging: Sender<()>,
}

impl Collector {
    /// One that takes all.
    pub fn start() -> Collector {
        Collector::replying(|_, stream| stream.write_all(OK))
    }

    /// One that takes what it is sent after having answered so.
    pub fn replying(
        reply: impl Fn(usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Collector {
        Collector::with(Arc::new(reply), channel().0)
    }

    /// One that takes a request and says nothing, until it is dropped.
    pub fn hanging() -> Collector {
        let (hanging, hangs) = channel::<()>();
        let hangs = Mutex::new(hangs);
        let reply = move |_, _: &mut TcpStream| {
            // Until the sender is dropped.
            while hangs.lock().unwrap().recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {}
            Err(std::io::ErrorKind::BrokenPipe.into())
        };
        Collector::with(Arc::new(reply), hanging)
    }

    fn with(reply: Arc<Reply>, hanging: Sender<()>) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        thread::spawn(move || {
            let count = Arc::new(AtomicUsize::new(0));
            for (connection, stream) in listener.incoming().enumerate() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (count, reply, sender) = (count.clone(), reply.clone(), sender.clone());
                let stream = stream.unwrap();
                thread::spawn(move || serve(connection, stream, &count, &*reply, &sender));
            }
        });
        Collector {
            address,
            requests,
            spans: RefCell::default(),
            is_over,
            _hanging: hanging,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request.
    pub fn request(&self) -> Request {
        self.requests.recv_timeout(LONG).expect("no request came")
    }

    /// The next so many spans, in whatever order and however many at once they come.
    pub fn spans(&self, count: usize) -> Vec<Span> {
        let mut spans = self.spans.borrow_mut();
        while spans.len() < count {
            spans.extend(self.request().spans());
        }
        spans.drain(..count).collect()
    }

    /// The next span.
    pub fn span(&self) -> Span {
        self.spans(1).remove(0)
    }

    /// Requests that came, and were not asked for.
    pub fn others(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It may be about to accept.
        let _ = TcpStream::connect(self.address);
    }
}

impl Request {
    pub fn spans(&self) -> Vec<Span> {
        Span::all(&self.body)
    }
}

const OK: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

fn serve(
    connection: usize,
    stream: TcpStream,
    count: &AtomicUsize,
    reply: &Reply,
    sender: &Sender<Request>,
) {
    // A test that has failed leaves nobody behind.
    let _ = stream.set_read_timeout(Some(LONG * 2));
    let _ = stream.set_write_timeout(Some(LONG * 2));
    let mut writes = stream.try_clone().unwrap();
    let mut reads = BufReader::new(stream);
    while let Some(request) = read(connection, &mut reads) {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let _ = sender.send(request);
        if reply(number, &mut writes).is_err() {
            return;
        }
    }
}

fn read(connection: usize, stream: &mut impl BufRead) -> Option<Request> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
        head.push('\n');
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request {
        connection,
        head,
        body,
    })
}
