//! Clients of other gRPC implementations call a server of touchdown, in every way there is.

mod clients;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use clients::{installed, limited, node, output, python, tonic};
use touchdown::{Listen, Server, Tls};
use touchdown_interop::{conformance, test_service::test_service};

/// The published cases that need no TLS, no credentials and no proxy.
const INTEROP: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
];

/// grpc-go's client does not have these.
const INTEROP_COMPRESSED: [&str; 2] = ["client_compressed_unary", "client_compressed_streaming"];

const CONFORMANCE: [&str; 10] = [
    "unary",
    "server_streaming",
    "client_streaming",
    "bidirectional",
    "metadata",
    "statuses",
    "deadline",
    "cancellation",
    "large_messages",
    "compression",
];

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_sees_what_becomes_of_its_calls_when_the_server_stops() {
    let mut command = python("stops.py");
    // With 50 ms it passes on a machine that does nothing else.
    command.arg(env!("CARGO_BIN_EXE_stops")).arg("500");
    output(command);
}

#[test]
#[ignore = "needs the interop client of grpc-go: tests/foreign/grpc-go.sh"]
fn grpc_go_passes_the_published_cases() {
    let server = start(Listen::new("127.0.0.1:0"));
    let port = server.address().to_string();
    let (_, port) = port.rsplit_once(':').unwrap();
    for case in INTEROP.iter().chain(&["pick_first_unary"]) {
        let mut command = limited(&installed("grpc-go/interop_client"));
        command.args(["-server_host", "127.0.0.1", "-server_port", port]);
        command.args(["-test_case", case]);
        output(command);
    }
    stop(server);
}

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_passes_the_published_cases() {
    pass(python("interop.py"), &interop());
}

#[test]
#[ignore = "needs Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_passes_the_published_cases() {
    pass(node("interop.mjs"), &interop());
}

#[test]
#[ignore = "needs the client on tonic: tests/foreign/setup.sh"]
fn tonic_passes_the_published_cases() {
    pass(tonic("interop"), &interop());
}

#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_gets_all_that_grpc_promises() {
    pass(python("conformance.py"), &CONFORMANCE);
}

#[test]
#[ignore = "needs Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_gets_all_that_grpc_promises() {
    pass(node("conformance.mjs"), &CONFORMANCE);
}

#[test]
#[ignore = "needs the client on tonic: tests/foreign/setup.sh"]
fn tonic_gets_all_that_grpc_promises() {
    pass(tonic("conformance"), &CONFORMANCE);
}

/// With certificates on both sides.
#[test]
#[ignore = "needs Python with grpcio: tests/foreign/setup.sh"]
fn python_does_all_of_it_over_tls() {
    pass_over_tls(python("interop.py"), &interop());
    pass_over_tls(python("conformance.py"), &CONFORMANCE);
}

#[test]
#[ignore = "needs Node with @grpc/grpc-js: tests/foreign/setup.sh"]
fn node_does_all_of_it_over_tls() {
    pass_over_tls(node("interop.mjs"), &interop());
    pass_over_tls(node("conformance.mjs"), &CONFORMANCE);
}

#[test]
#[ignore = "needs the interop client of grpc-go: tests/foreign/grpc-go.sh"]
fn grpc_go_passes_the_published_cases_over_tls() {
    let folder = certificates();
    let tls = Tls::from_pem_files(folder.join("server.pem"), folder.join("server.key"));
    let server = start(Listen::new("127.0.0.1:0").tls(tls.load().unwrap()));
    let port = server.address().to_string();
    let (_, port) = port.rsplit_once(':').unwrap();
    for case in INTEROP {
        let mut command = limited(&installed("grpc-go/interop_client"));
        command.args(["-server_host", "127.0.0.1", "-server_port", port]);
        command.args(["-use_tls", "-use_test_ca", "-ca_file"]);
        command
            .arg(folder.join("ca.pem"))
            .args(["-test_case", case]);
        output(command);
    }
    stop(server);
    std::fs::remove_dir_all(folder).unwrap();
}

fn pass_over_tls(mut client: Command, cases: &[&str]) {
    let folder = certificates();
    let tls = Tls::from_pem_files(folder.join("server.pem"), folder.join("server.key"));
    let tls = tls.client_ca(folder.join("ca.pem")).load().unwrap();
    client.env("TOUCHDOWN_TLS", &folder);
    pass_at(Listen::new("127.0.0.1:0").tls(tls), client, cases);
    std::fs::remove_dir_all(folder).unwrap();
}

/// A new folder with those of a CA, of a server at this machine, and of a client.
fn certificates() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("touchdown-interop-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, content: String| std::fs::write(folder.join(name), content).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // By this a client sees that no other certificate has signed itself.
    params.distinguished_name.push(DnType::CommonName, "CA");
    let ca = params.self_signed(&ca_key).unwrap();
    write("ca.pem", ca.pem());
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &ca, &ca_key).unwrap();
        write(&format!("{name}.pem"), certificate.pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    folder
}

fn interop() -> Vec<&'static str> {
    [&INTEROP[..], &INTEROP_COMPRESSED].concat()
}

/// Runs the cases, one after the other, in one client.
fn pass(client: Command, cases: &[&str]) {
    pass_at(Listen::new("127.0.0.1:0"), client, cases);
}

fn pass_at(listen: Listen, mut client: Command, cases: &[&str]) {
    let server = start(listen);
    client.arg(server.address().to_string()).args(cases);
    let written = output(client);
    let passed: Vec<_> = written
        .lines()
        .filter_map(|line| line.strip_prefix("passed "))
        .collect();
    assert_eq!(passed, cases);
    stop(server);
}

fn start(listen: Listen) -> Server {
    let _ = env_logger::builder().is_test(true).try_init();
    Server::builder()
        .listen(listen)
        .service(test_service())
        .service(conformance::service())
        .start()
        .expect("the server starts")
}

/// The clients have gone, so nothing may be left of their calls.
fn stop(server: Server) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.in_flight() > 0 || server.connections() > 0 {
        assert!(
            Instant::now() < deadline,
            "{} calls on {} connections are left",
            server.in_flight(),
            server.connections()
        );
        thread::sleep(Duration::from_millis(1));
    }
    let report = server.shutdown();
    assert_eq!(report.exit_code(), 0, "{report}");
    assert_eq!(report.calls.abandoned, 0, "{report}");
}
