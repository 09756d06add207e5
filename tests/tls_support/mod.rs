//! What the tests of TLS share: certificates made for them, a client with HTTP/2 by hand, and an ear
//! for the log.
#![allow(dead_code)]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};

use rcgen::{date_time_ymd, BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use rcgen::{ExtendedKeyUsagePurpose, SerialNumber};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, StreamOwned};
use touchdown::lifecycle::Report;
use touchdown::{CallObserver, ConnectionEvent, Listen, Server, Service, Tls, TlsFiles};

use crate::common::{call_headers, planned, quick_plan, LONG, PREFACE};

/// A folder with certificates, which goes with it.
pub struct Folder {
    pub path: PathBuf,
}

/// A CA, whose certificates are written into a folder.
pub struct Ca {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Ca {
    pub fn new(name: &str) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Ca { certificate, key }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate and its key, in PEM.
    pub fn sign(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params
            .signed_by(&key, &self.certificate, &self.key)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// For a server at this machine.
pub fn server_params() -> CertificateParams {
    CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

pub fn client_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([format!("{name}.fleet")]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let uri = format!("spiffe://fleet/{name}").try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(SerialNumber::from_slice(&[1, 2, 3]));
    params
}

pub fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
    params
}

impl Folder {
    pub fn empty() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("touchdown-tls-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder { path }
    }

    /// With ca.pem; server.pem and server.key; client.pem and client.key, of the same CA.
    pub fn new() -> Folder {
        // CAs are told from each other by their names.
        let name = format!("CA {:?}", std::time::Instant::now());
        Folder::of(&Ca::new(&name))
    }

    pub fn of(ca: &Ca) -> Folder {
        let folder = Folder::empty();
        folder.write("ca.pem", &ca.pem());
        folder.write_pair("server", ca.sign(server_params()));
        folder.write_pair("client", ca.sign(client_params("drone-7")));
        folder
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.file(name), content).unwrap();
    }

    pub fn write_pair(&self, name: &str, (certificate, key): (String, String)) {
        self.write(&format!("{name}.pem"), &certificate);
        self.write(&format!("{name}.key"), &key);
    }

    pub fn files(&self) -> TlsFiles {
        Tls::from_pem_files(self.file("server.pem"), self.file("server.key"))
    }

    /// TLS that asks for no certificate of the client.
    pub fn tls(&self) -> Tls {
        self.files().load().unwrap()
    }

    pub fn mutual(&self) -> Tls {
        let files = self.files().client_ca(self.file("ca.pem"));
        files.load().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

pub fn builder(service: Service, tls: Tls) -> touchdown::ServerBuilder {
    Server::builder()
        .listen(Listen::new("127.0.0.1:0").tls(tls))
        .lifecycle(planned(quick_plan()))
        .service(service)
}

pub fn start(service: Service, tls: Tls) -> Server {
    builder(service, tls).start().expect("the server starts")
}

pub enum Version {
    Tls12,
    Tls13,
}

/// What a client trusts, shows and asks for.
pub struct Wish<'a> {
    pub ca: &'a Path,
    /// Certificate and key.
    pub shown: Option<(PathBuf, PathBuf)>,
    pub version: Version,
    pub protocols: Vec<Vec<u8>>,
}

impl<'a> Wish<'a> {
    pub fn new(ca: &'a Path) -> Wish<'a> {
        Wish {
            ca,
            shown: None,
            version: Version::Tls13,
            protocols: vec![b"h2".to_vec()],
        }
    }

    pub fn showing(self, folder: &Folder, name: &str) -> Wish<'a> {
        let file = |kind: &str| folder.file(&format!("{name}.{kind}"));
        Wish {
            shown: Some((file("pem"), file("key"))),
            ..self
        }
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.ca).unwrap())
            .unwrap();
        let versions = match self.version {
            Version::Tls12 => &TLS12,
            Version::Tls13 => &TLS13,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[versions])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.shown {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_file_iter(certificate).unwrap();
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_file(key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.protocols.clone();
        Arc::new(config)
    }
}

/// A client that does not look at the dates of the server's certificate, nor at anything else of it.
#[derive(Debug)]
struct Anybody(rustls::crypto::WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl Wish<'_> {
    /// As `config`, and takes every certificate of a server, whatever is wrong with it.
    pub fn credulous(&self) -> Arc<ClientConfig> {
        let mut config = (*self.config()).clone();
        let provider = rustls::crypto::ring::default_provider();
        let verifier = Anybody(provider.signature_verification_algorithms);
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }
}

/// The first certificate in a file.
pub fn der_of(pem: &[u8]) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_slice(pem).unwrap();
    certificate.to_vec()
}

/// A connection on which HTTP/2 is written by hand.
pub struct Client<S: Read + Write = TcpStream> {
    pub stream: StreamOwned<ClientConnection, S>,
    next_stream: u32,
    pub told_to_go: bool,
}

/// Connects, and leaves the handshake to the first use.
pub fn connect(server: &Server, config: &Arc<ClientConfig>) -> Client {
    let socket = TcpStream::connect(server.address().to_string()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    Client::new(socket, config)
}

/// A connection that is ready for calls.
pub fn client(server: &Server, wish: &Wish<'_>) -> Client {
    let mut client = connect(server, &wish.config());
    client.begin().expect("the server answers");
    client
}

impl<S: Read + Write> Client<S> {
    pub fn new(socket: S, config: &Arc<ClientConfig>) -> Client<S> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        Client {
            stream: StreamOwned::new(connection, socket),
            next_stream: 1,
            told_to_go: false,
        }
    }

    /// Shakes hands, and waits for the server's settings.
    pub fn begin(&mut self) -> io::Result<()> {
        self.stream.write_all(PREFACE)?;
        // Replies are read without ever saying so, and more would stop at 64 KiB in all: a window for all of them.
        let window = frame(8, 0, 0, &(i32::MAX - 65_535).to_be_bytes());
        self.stream.write_all(&window)?;
        loop {
            let (kind, flags, _, _) = self.read_frame()?;
            if kind == 4 && flags == 0 {
                return Ok(());
            }
        }
    }

    /// Calls `/test.Echo/Say`, and returns the reply.
    pub fn say(&mut self, text: &str) -> io::Result<String> {
        let number = self.send(text)?;
        self.reply_to(number)
    }

    /// Begins a call, and returns its stream.
    pub fn send(&mut self, text: &str) -> io::Result<u32> {
        let number = self.next_stream;
        self.next_stream += 2;
        let headers = frame(1, 4, number, &call_headers("POST", "/test.Echo/Say"));
        let length = u8::try_from(text.len()).expect("a short text");
        assert!(length < 128);
        let message = [&[0, 0, 0, 0, length + 2, 10, length], text.as_bytes()].concat();
        let whole = [headers, frame(0, 1, number, &message)].concat();
        self.stream.write_all(&whole)?;
        self.stream.flush()?;
        Ok(number)
    }

    pub fn reply_to(&mut self, number: u32) -> io::Result<String> {
        let mut data = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.read_frame()?;
            if stream != number {
                continue;
            }
            match kind {
                0 => data.extend(payload),
                1 if flags & 1 != 0 => break,
                3 => return Err(io::Error::other("the call was reset")),
                _ => {}
            }
        }
        // The message's length, the field and its length come before.
        let text = data.get(7..).ok_or(io::Error::other("no reply"))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    pub fn write_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        self.stream.write_all(&frame(kind, flags, stream, payload))
    }

    /// Kind, flags, stream and payload. Answers what must be answered.
    pub fn read_frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut header = [0; 9];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload)?;
        let (kind, flags) = (header[3], header[4]);
        match (kind, flags) {
            (4, 0) => self.stream.write_all(&frame(4, 1, 0, &[]))?,
            (6, 0) => self.stream.write_all(&frame(6, 1, 0, &payload))?,
            (7, _) => self.told_to_go = true,
            _ => {}
        }
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        Ok((kind, flags, stream, payload))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    [&length[1..], &[kind, flags, a, b, c, d], payload].concat()
}

/// Reads until the server closes, and returns what came.
pub fn read_all(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.read_to_end(&mut bytes).expect("the server closes");
    bytes
}

/// Keeps the reasons for which handshakes have failed.
#[derive(Default)]
pub struct Failures(Mutex<Vec<String>>);

impl Failures {
    pub fn with(&self, text: &str) -> usize {
        let reasons = self.0.lock().unwrap();
        reasons.iter().filter(|it| it.contains(text)).count()
    }
}

impl CallObserver for Failures {
    fn connection(&self, event: &ConnectionEvent) {
        if let ConnectionEvent::HandshakeFailed { reason, .. } = event {
            self.0.lock().unwrap().push(reason.clone());
        }
    }
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Ear;

impl log::Log for Ear {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            let line = format!("{} {}", record.level(), record.args());
            println!("{line}");
            LINES.lock().unwrap().push(line);
        }
    }
    fn flush(&self) {}
}

/// Begins to listen to the log, once.
pub fn listen_to_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Ear).expect("nobody else listens");
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// How many lines of the log have this in them.
pub fn logged(text: &str) -> usize {
    // What was said is written then.
    let _ = ExitCode::from(Report::failed_start("test"));
    let lines = LINES.lock().unwrap();
    lines.iter().filter(|it| it.contains(text)).count()
}
