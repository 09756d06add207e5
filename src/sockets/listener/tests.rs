use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::sockets::accepted::TcpKeepalive;
use crate::sockets::{bind, options};

/// Listens with what fits of `given`, which is taken out of it.
fn bind(options: &ListenOptions, given: &mut Vec<Inherited>) -> io::Result<Vec<Listener>> {
    let all = Mutex::new(std::mem::take(given));
    let listeners = bind::bind_with(std::slice::from_ref(options), &all);
    *given = all.into_inner();
    listeners.map_err(|(_, error)| error)
}

/// Listens with default options.
fn bind_from(address: &str, given: &mut Vec<Inherited>) -> io::Result<Vec<Listener>> {
    bind(&ListenOptions::new(address.to_owned()), given)
}

fn bind_one(address: &str, given: &mut Vec<Inherited>) -> Listener {
    let mut listeners = bind_from(address, given).unwrap();
    assert_eq!(listeners.len(), 1);
    listeners.remove(0)
}

fn given(name: &str, socket: impl Into<OwnedFd>) -> Inherited {
    Inherited {
        name: name.to_owned(),
        socket: socket.into(),
        path_stays: false,
        of_unit: false,
        in_use: false,
    }
}

fn temporary_path(name: &str) -> PathBuf {
    let file = format!("touchdown-{}-{name}.sock", std::process::id());
    std::env::temp_dir().join(file)
}

#[test]
fn a_successor_finds_its_sockets_by_the_names_they_had() {
    let mut none = Vec::new();
    let old = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"].map(|it| bind_one(it, &mut none));
    let mut handed = old.each_ref().map(|it| it.hand_over().unwrap()).into();
    let second = bind_one("127.0.0.1:0", &mut handed);
    assert_eq!(second.address(), old[0].address());
    let third = bind_one("127.0.0.1:0", &mut handed);
    assert_eq!(third.address(), old[1].address());
    let other = bind_one("127.0.0.1:0", &mut handed);
    assert_ne!(other.address(), old[0].address(), "there were two");
    let six = bind_one("[::1]:0", &mut handed);
    assert_eq!(six.address(), old[2].address());
    assert!(handed.is_empty());
}

#[test]
fn a_socket_is_found_by_its_address_too() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut sockets = vec![given("systemd:web", socket)];
    let listener = bind_one(&address, &mut sockets);
    assert_eq!(listener.address().to_string(), address);
    // Under this name its own successor looks for it.
    assert_eq!(listener.hand_over().unwrap().name, address);
    assert!(sockets.is_empty());
}

/// As systemd makes one for `ListenStream=50056`, and the address of IPv4 with its port.
fn of_every_address() -> (TcpListener, String) {
    let socket = TcpListener::bind("[::]:0").expect("a kernel with IPv6");
    let port = socket.local_addr().unwrap().port();
    (socket, format!("0.0.0.0:{port}"))
}

#[test]
fn a_socket_of_both_families_serves_every_address_of_ipv4() {
    let (socket, every) = of_every_address();
    let local = socket.local_addr().unwrap().to_string();
    let mut sockets = vec![given("systemd:greeter.socket", socket)];
    let listener = bind_one(&every, &mut sockets);
    assert_eq!(listener.address().to_string(), local);
    assert!(sockets.is_empty());
    // Its successor finds it in the same way.
    let mut handed = vec![listener.hand_over().unwrap()];
    assert_eq!(bind_one(&every, &mut handed).address().to_string(), local);
}

#[test]
fn what_asks_for_a_socket_itself_gets_it_before_what_it_serves_beside() {
    let (socket, every) = of_every_address();
    let local = socket.local_addr().unwrap().to_string();
    let wanted = [every, local].map(ListenOptions::new);
    let sockets = Mutex::new(vec![given("systemd:greeter.socket", socket)]);
    // The kernel refuses the other one: the port is taken.
    let (address, error) = bind::bind_with(&wanted, &sockets).map(drop).unwrap_err();
    assert_eq!(address, wanted[0].address, "{error}");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

/// Each is told what was passed, and how it is named.
#[test]
fn what_was_passed_and_is_in_the_way_is_named() {
    let (socket, every) = of_every_address();
    let (local, port) = (socket.local_addr().unwrap(), every.replace("0.0.0.0", ""));
    let mut sockets = vec![given("systemd:greeter.socket", socket)];
    for wanted in ["127.0.0.1", "[::1]"] {
        let error = bind_from(&format!("{wanted}{port}"), &mut sockets).err();
        let words = format!(
            "systemd has passed {local} to this process, which has the port: listen at systemd:greeter.socket or at \
             {local}, or write ListenStream={wanted}{port} in the socket unit"
        );
        let error = error.unwrap();
        assert_eq!(error.to_string(), words);
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(sockets.len(), 1, "it is kept for another try");
    }
    // The other way about; and from a store, and from a process before this one.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let local = socket.local_addr().unwrap();
    let everywhere = local.to_string().replace("127.0.0.1", "[::]");
    let mut stored = given(&local.to_string(), socket);
    for words in ["which empties the store", "instead of a hot restart"] {
        let mut sockets = vec![stored];
        let error = bind_from(&everywhere, &mut sockets)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(words) && error.contains(&local.to_string()),
            "{error}"
        );
        stored = sockets.remove(0);
        stored.in_use = true;
    }
    // What is not in the way is not accused.
    let other = TcpListener::bind("127.0.0.2:0").unwrap();
    let others = other.local_addr().unwrap().to_string();
    let error = bind_from(&others, &mut vec![stored]).err().unwrap();
    assert!(error.to_string().contains("this process itself"), "{error}");
}

/// systemd itself writes /run for /var/run, which is a link.
#[test]
fn a_path_is_the_same_however_it_is_written() {
    let path = temporary_path("spelled");
    let folder = path.with_extension("link");
    let _ = std::fs::remove_file(&folder);
    std::os::unix::fs::symlink(path.parent().unwrap(), &folder).unwrap();
    let other = folder.join(path.file_name().unwrap());
    let address = format!("unix:{}", other.display());
    let mut sockets = vec![given("systemd:web", UnixListener::bind(&path).unwrap())];
    let listener = bind_one(&address, &mut sockets);
    assert_eq!(*listener.address(), Address::Unix(path.clone()));
    assert!(sockets.is_empty());
    std::fs::remove_file(folder).unwrap();
    std::fs::remove_file(path).unwrap();
}

#[test]
fn systemd_sockets_go_by_their_names_whatever_they_are() {
    let path = temporary_path("systemd");
    let name = UnixSocketAddr::from_abstract_name(path.to_str().unwrap()).unwrap();
    let mut sockets = vec![
        given("systemd:web", TcpListener::bind("127.0.0.1:0").unwrap()),
        given("systemd:other", TcpListener::bind("127.0.0.1:0").unwrap()),
        given("systemd:web", UnixListener::bind(&path).unwrap()),
        given("systemd:web", UnixListener::bind_addr(&name).unwrap()),
    ];
    // A service in a root directory of its own does not see it.
    std::fs::remove_file(path).unwrap();
    let listeners = bind_from("systemd:web", &mut sockets).unwrap();
    let kinds: Vec<_> = listeners.iter().map(Listener::address).collect();
    assert!(
        matches!(
            kinds[..],
            [Address::Tcp(_), Address::Unix(_), Address::Abstract(_)]
        ),
        "{kinds:?}"
    );
    let error = bind_from("systemd:web", &mut sockets)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("only: other"), "{error}");
    sockets.clear();
    let error = bind_from("systemd:web", &mut sockets)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("has passed no socket"), "{error}");
}

#[test]
fn what_is_no_listening_socket_is_named_in_the_error() {
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (connected, _other) = UnixStream::pair().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let wrong = [
        (given("systemd:it", datagrams), "no stream socket"),
        (given("systemd:it", connected), "does not listen"),
        (given("systemd:it", file), "no socket"),
    ];
    for (socket, why) in wrong {
        let error = bind_from("systemd:it", &mut vec![socket]).err().unwrap();
        let error = error.to_string();
        assert!(
            error.contains("systemd:it") && error.contains(why),
            "{error}"
        );
    }
}

#[test]
fn the_access_to_a_path_holds_for_what_was_given_too() {
    let path = temporary_path("access");
    let address = format!("unix:{}", path.display());
    let mut options = ListenOptions::new(address.clone());
    options.access.mode = Some(0o640);
    let mode = || {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.mode() & 0o7777
    };
    let old = bind_one(&address, &mut Vec::new());
    assert_ne!(mode(), 0o640);
    // systemd's is not this program's to change, and not lost either.
    let mut systemds = vec![Inherited {
        path_stays: true,
        of_unit: true,
        ..old.hand_over().unwrap()
    }];
    let error = bind(&options, &mut systemds).map(drop).unwrap_err();
    assert!(error.to_string().contains("SocketMode="), "{error}");
    assert_eq!(systemds.len(), 1);
    let mut handed = vec![old.hand_over().unwrap()];
    let mut listeners = bind(&options, &mut handed).unwrap();
    assert_eq!(handed.len(), 0);
    listeners[0].own_path();
    assert_eq!(mode(), 0o640);
}

#[test]
fn the_last_that_listens_removes_the_path() {
    let path = temporary_path("handed-over");
    let address = format!("unix:{}", path.display());
    let mut old = bind_one(&address, &mut Vec::new());
    // A successor that gave up before it accepted anything.
    drop(bind_one(&address, &mut vec![old.hand_over().unwrap()]));
    assert!(path.exists());
    let mut new = bind_one(&address, &mut vec![old.hand_over().unwrap()]);
    old.leave_path();
    new.own_path();
    drop(old);
    UnixStream::connect(&path).unwrap();
    assert!(new.accept().unwrap().is_some());
    let stays = Inherited {
        path_stays: true,
        ..new.hand_over().unwrap()
    };
    new.leave_path();
    drop(new);
    let mut systemds = bind_one(&address, &mut vec![stays]);
    systemds.own_path();
    drop(systemds);
    assert!(path.exists(), "systemd's path stays");
    std::fs::remove_file(path).unwrap();
}

fn with_mode(address: &str, mode: u32, given: &mut Vec<Inherited>) -> io::Result<Listener> {
    let mut options = ListenOptions::new(address.to_owned());
    options.access.mode = Some(mode);
    Ok(bind(&options, given)?.remove(0))
}

fn mode(path: &PathBuf) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn who_may_connect_is_the_successors_to_say_once_it_is_in_charge() {
    let path = temporary_path("mode");
    let address = format!("unix:{}", path.display());
    let mut old = with_mode(&address, 0o660, &mut Vec::new()).unwrap();
    let handed = || vec![old.hand_over().unwrap()];
    drop(with_mode(&address, 0o600, &mut handed()).unwrap());
    assert_eq!(mode(&path), 0o660, "the successor has failed");
    let mut new = with_mode(&address, 0o600, &mut handed()).unwrap();
    old.leave_path();
    new.own_path();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn who_may_connect_to_a_stored_socket_is_the_programs_to_say() {
    let path = temporary_path("stored-mode");
    let address = format!("unix:{}", path.display());
    let stored = || Inherited {
        path_stays: true,
        ..given(&address, UnixListener::bind(&path).unwrap())
    };
    let listener = with_mode(&address, 0o640, &mut vec![stored()]).unwrap();
    assert_eq!(mode(&path), 0o640);
    drop(listener);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn connections_get_the_tcp_options_of_their_listener() {
    let keepalive = TcpKeepalive {
        idle: 30,
        interval: 7,
        probes: 4,
    };
    let tcp = TcpOptions {
        keepalive: Some(keepalive),
        user_timeout: None,
    };
    let options = ListenOptions {
        tcp,
        ..ListenOptions::new("127.0.0.1:0".to_owned())
    };
    let listeners = bind(&options, &mut Vec::new()).unwrap();
    let _client = TcpStream::connect(listeners[0].address().to_string()).unwrap();
    let accepted = listeners[0].accept().unwrap().unwrap();
    let get = |level, name| options::get(&accepted.socket, level, name).unwrap();
    assert_eq!(get(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
    assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 30);
    assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), 7);
    assert_eq!(get(libc::IPPROTO_TCP, libc::TCP_KEEPCNT), 4);
    assert_eq!(accepted.unanswered, Some(Duration::from_secs(58)));
    let user_timeout = Some(Duration::from_secs(9));
    let tcp = TcpOptions {
        user_timeout,
        ..tcp
    };
    assert_eq!(tcp.unanswered(), user_timeout);
    assert_eq!(TcpOptions::default().unanswered(), None);
}

#[test]
fn a_socket_without_its_path_is_not_used() {
    let path = temporary_path("gone");
    let address = format!("unix:{}", path.display());
    let socket = UnixListener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let listener = bind_one(&address, &mut vec![given(&address, socket)]);
    UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
    drop(listener);
    assert!(!path.exists());
}
