//! The admin service: what it says and does, and for whom.

mod common;
mod lifecycle_support;

use std::env;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::*;
use lifecycle_support::{bound, role, say as tell, Process};
use touchdown::admin::messages::{DrainRequest, StatusRequest, UpgradeRequest};
use touchdown::admin::{Admin, AdminClient};
use touchdown::client::Channel;
use touchdown::lifecycle::{exit_code, Signals, StartupHook};
use touchdown::{Code, Server, Upgrade};

fn socket(name: &str) -> PathBuf {
    env::temp_dir().join(format!("touchdown-admin-{}-{name}", std::process::id()))
}

fn admin_at(path: &Path) -> AdminClient {
    AdminClient::new(&channel_to(&format!("unix:{}", path.display())))
}

#[test]
fn it_answers_while_every_worker_is_blocked_and_while_the_server_drains() {
    let _bound = bound();
    let path = socket("status");
    let (begun, has_begun) = crossbeam_channel::unbounded();
    let (go_on, may_go_on) = crossbeam_channel::bounded::<()>(0);
    let service = unary(move |_, request| {
        begun.send(()).unwrap();
        let _ = may_go_on.recv();
        Ok(request)
    });
    let server = builder(service)
        .workers(1)
        .backlog(1)
        .admin(Admin::at(&path))
        .start()
        .unwrap();
    let admin = admin_at(&path);
    let status = || admin.status(&StatusRequest::new()).unwrap();
    assert_eq!(status().phase, "serving");
    assert_eq!(status().process, std::process::id());
    assert_eq!(status().in_flight, 0);

    let calls: Vec<_> = (0..2)
        .map(|_| {
            let client = client(&server);
            thread::spawn(move || say(&client, "hello"))
        })
        .collect();
    has_begun.recv().unwrap();
    eventually("both are there", || status().in_flight == 2);
    assert!(
        status().description.contains("/test.Echo/Say of "),
        "{}",
        status().description
    );
    assert_eq!(status().reason, "");

    let request = DrainRequest {
        reason: "a new kernel".to_owned(),
        ..Default::default()
    };
    let drained = admin.drain(&request).unwrap();
    assert!(
        drained
            .reason
            .starts_with("requested: a new kernel (by process "),
        "{drained:?}"
    );
    eventually("it drains", || status().phase == "draining");
    assert_eq!(status().reason, drained.reason);
    let again = DrainRequest::new();
    assert_eq!(
        admin.drain(&again).unwrap().reason,
        drained.reason,
        "the first counts"
    );
    drop(go_on);
    for call in calls {
        assert_eq!(call.join().unwrap(), Ok("hello".to_owned()));
    }
    let report = server.wait();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert!(!path.exists());
}

#[test]
fn a_start_up_hook_may_make_the_folder_of_its_socket() {
    let _bound = bound();
    let folder = socket("start-up").with_extension("d");
    let path = folder.join("admin.sock");
    let made = folder.clone();
    let hook = StartupHook::new("folder", move || Ok(fs::create_dir(&made)?));
    let builder = builder(echo()).admin(Admin::at(&path)).startup(hook);
    let server = builder.start().expect("the folder is there in time");
    let status = admin_at(&path).status(&StatusRequest::new()).unwrap();
    assert_eq!(status.phase, "serving");
    server.shutdown();
    assert!(!path.exists());
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn it_is_not_there_unless_asked_for() {
    let _bound = bound();
    let server = start(echo());
    let admin = AdminClient::new(&channel(&server));
    let error = admin.drain(&DrainRequest::new()).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    // And the port of a server that has one knows nothing of it.
    let path = socket("elsewhere");
    let server = builder(echo()).admin(Admin::at(&path)).start().unwrap();
    let admin = AdminClient::new(&channel(&server));
    let error = admin.drain(&DrainRequest::new()).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

#[test]
fn who_is_not_allowed_is_refused() {
    const NOBODY: u32 = 65534;
    let _bound = bound();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    let start = |name: &str, admin: fn(Admin) -> Admin| {
        let path = socket(name);
        let server = builder(echo())
            .admin(admin(Admin::at(&path)))
            .start()
            .unwrap();
        (server, path)
    };
    let (_server, path) = start("for-root", |it| it);
    let error = connect_as(NOBODY, &path).map(drop).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);

    let (_server, path) = start("for-another", |it| it.allow_user(12_345));
    let admin = AdminClient::new(&connect_as(NOBODY, &path).unwrap());
    let error = admin.status(&StatusRequest::new()).unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert_eq!(
        admin_at(&path).status(&StatusRequest::new()).unwrap().phase,
        "serving"
    );

    let (_server, path) = start("for-nobody", |it| it.allow_user(NOBODY));
    let admin = AdminClient::new(&connect_as(NOBODY, &path).unwrap());
    assert_eq!(
        admin.status(&StatusRequest::new()).unwrap().phase,
        "serving"
    );
}

/// A channel of this user's.
fn connect_as(user: u32, path: &Path) -> io::Result<Channel> {
    let path = path.to_owned();
    let socket = thread::spawn(move || {
        // SAFETY: a system call without memory. It changes this thread alone, which ends.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, -1, user, -1) };
        assert_eq!(result, 0);
        UnixStream::connect(path)
    });
    Channel::over(socket.join().unwrap()?)
}

/// Runs a server with an admin socket in this folder until it ends.
fn play(folder: &str) -> ! {
    let folder = Path::new(folder);
    let settle = fs::read_to_string(folder.join("settle"));
    let settle = Duration::from_secs(settle.map_or(0, |it| it.parse().unwrap()));
    let upgrade = Upgrade::new().settle(settle);
    let upgrade = match fs::read_to_string(folder.join("program")) {
        Ok(program) => upgrade.program(program),
        Err(_) => upgrade,
    };
    let server: Server = builder(echo())
        .signals(Signals::process())
        .upgrade(upgrade)
        .admin(Admin::at(folder.join("admin")))
        .start()
        .unwrap();
    tell("it serves");
    let report = server.wait();
    std::process::exit(report.exit_code().into())
}

#[test]
fn an_upgrade_is_begun_and_its_outcome_told() {
    const NAME: &str = "an_upgrade_is_begun_and_its_outcome_told";
    let _bound = bound();
    if let Some(folder) = role() {
        play(&folder);
    }
    let folder = socket("folder");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("admin");
    let mut old = Process::start_as(&folder.display().to_string(), NAME);
    old.hear("it serves");
    let admin = admin_at(&path);
    let first = admin.status(&StatusRequest::new()).unwrap().process;
    let new = admin.upgrade(&UpgradeRequest::new()).unwrap().process;
    assert_ne!(new, first);
    eventually("the new one answers", || {
        admin
            .status(&StatusRequest::new())
            .is_ok_and(|it| it.process == new)
    });
    // Speaks on the pipe of the old one.
    old.hear("it serves");
    admin.drain(&DrainRequest::new()).unwrap();
    assert_eq!(old.end().code, Some(exit_code::CLEAN.into()));

    fs::write(folder.join("program"), "/does/not/exist").unwrap();
    let mut old = Process::start_as(&folder.display().to_string(), NAME);
    old.hear("it serves");
    let error = admin_at(&path).upgrade(&UpgradeRequest::new()).unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("No such file or directory"),
        "{error}"
    );
    admin_at(&path).drain(&DrainRequest::new()).unwrap();
    assert_eq!(old.end().code, Some(exit_code::CLEAN.into()));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn while_two_processes_serve_the_orders_are_for_the_one_in_charge() {
    const NAME: &str = "while_two_processes_serve_the_orders_are_for_the_one_in_charge";
    let _bound = bound();
    if let Some(folder) = role() {
        play(&folder);
    }
    let folder = socket("both");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("settle"), "1000").unwrap();
    let path = folder.join("admin");
    let mut old = Process::start_as(&folder.display().to_string(), NAME);
    old.hear("it serves");
    let first = admin_at(&path)
        .status(&StatusRequest::new())
        .unwrap()
        .process;
    let upgrade = {
        let admin = admin_at(&path);
        thread::spawn(move || admin.upgrade(&UpgradeRequest::new()))
    };
    // The new one.
    old.hear("it serves");
    for _ in 0..50 {
        let status = admin_at(&path).status(&StatusRequest::new()).unwrap();
        assert_eq!(status.process, first);
    }
    admin_at(&path).drain(&DrainRequest::new()).unwrap();
    assert_eq!(
        upgrade.join().unwrap().unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(old.end().code, Some(exit_code::CLEAN.into()));
    fs::remove_dir_all(&folder).unwrap();
}
