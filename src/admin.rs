//! Status, stop and upgrade from afar: a small gRPC service for the operator, on a unix socket alone.
//!
//! It is off unless a server is built with [`ServerBuilder::admin`](crate::ServerBuilder::admin). Then
//! `touchdown.admin.v1.Admin` (proto/admin.proto) is served on a socket of its own, by threads of its
//! own, so that it answers while every worker is blocked, and during a drain:
//!
//! | method | what it does |
//! |---|---|
//! | `Status` | says the phase, the number of calls in flight, and what SIGUSR1 has written |
//! | `Drain` | begins the stop, as SIGTERM does |
//! | `Upgrade` | has a new process take over, as SIGUSR2 does (see [`Upgrade`]), and says how that went |
//!
//! ```no_run
//! use touchdown::admin::Admin;
//! use touchdown::Server;
//!
//! let report = Server::builder()
//!     .address("0.0.0.0:50051")
//!     .admin(Admin::at("/run/greeter/admin.sock"))
//!     .serve();
//! ```
//!
//! It answers from before the start-up hooks on, until the program ends. While two processes serve, in an upgrade, it is
//! the one in charge that answers.
//!
//! `examples/admin.rs` is a client, by [`AdminClient`].
//!
//! # Who may
//!
//! The kernel lets those connect who may write to the socket's path, whose mode is 0600; and every call is
//! refused with PERMISSION_DENIED whose caller is, by the kernel's word, neither root nor the user that
//! the program runs as, nor [allowed](Admin::allow_user). Refusals and orders are logged with the
//! caller's user and process.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use crate::logging;
use touchdown::lifecycle::{Hook, Lifecycle, Plan, Remote};
use touchdown::{
    Call, Code, Companion, Interceptor, Listen, Server, ServerBuilder, StartError, Status, Upgrade,
    UpgradeError,
};

use self::generated::admin::{
    admin_service, Admin as AdminService, DrainReply, DrainRequest, StatusReply, StatusRequest,
    UpgradeReply, UpgradeRequest,
};

/// What is generated from proto/admin.proto.
#[allow(clippy::all, missing_docs, unused)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/admin/mod.rs"));
}

/// The messages of the service.
#[allow(missing_docs)]
pub mod messages {
    pub use super::generated::admin::{
        DrainReply, DrainRequest, StatusReply, StatusRequest, UpgradeReply, UpgradeRequest,
    };
}

pub use self::generated::admin::AdminClient;

/// Where the admin service is, and for whom.
#[derive(Clone, Debug)]
#[must_use = "give it to `ServerBuilder::admin`"]
pub struct Admin {
    path: PathBuf,
    users: Vec<u32>,
}

/// More than one, so that a status is to be had while an upgrade is waited for.
const WORKERS: usize = 3;

/// Enough for operators and their scripts.
const CONNECTIONS: usize = 16;

impl Admin {
    /// The service on a unix socket at this path. For root, and the user that the program runs as.
    pub fn at(path: impl Into<PathBuf>) -> Admin {
        Admin {
            path: path.into(),
            users: Vec::new(),
        }
    }

    /// Lets the user with this number in as well. The mode of the socket's path is 0666 then, so that the kernel lets
    /// that user connect. Other users are refused, but can take up the few connections that there are. To keep others
    /// out altogether, put the socket into a folder that only these users may enter.
    pub fn allow_user(mut self, uid: u32) -> Admin {
        self.users.push(uid);
        self
    }

    /// Serves for this lifecycle, until the server that is returned is dropped.
    fn start(&self, lifecycle: &Lifecycle) -> Result<Server, StartError> {
        let mode = if self.users.is_empty() { 0o600 } else { 0o666 };
        let address = format!("unix:{}", self.path.display());
        let mut users = self.users.clone();
        users.extend([0, nix::unistd::geteuid().as_raw()]);
        let builder = Server::builder()
            .name(format!("admin at {}", self.path.display()))
            .listen(Listen::new(address).mode(mode))
            .workers(WORKERS)
            .backlog(CONNECTIONS)
            .max_connections(CONNECTIONS)
            .memory_limit(1 << 20)
            // Nothing here is worth waiting for while the program ends.
            .plan(Plan::default().with_grace_period(std::time::Duration::from_secs(1)))
            .interceptor(OnlyFor(users))
            .service(admin_service(Operator {
                program: lifecycle.remote(),
            }));
        builder.beside(lifecycle).start()
    }
}

/// The admin service beside a server. It starts with that one, once the start-up hooks are done: they may make the
/// folder that its socket lies in.
struct Beside(Admin);

impl Companion for Beside {
    fn started(self: Box<Self>, server: &Server) -> Result<(), Box<dyn Error + Send + Sync>> {
        let admin = self.0.start(server.lifecycle())?;
        let name = format!("close admin at {}", admin.address());
        let end = Hook::new(name, move || {
            admin.shutdown();
            Ok(())
        });
        // If a stop has begun meanwhile, it ends here.
        let _ = server.lifecycle().hook(end);
        Ok(())
    }
}

/// Lets these users pass.
struct OnlyFor(Vec<u32>);

impl Interceptor for OnlyFor {
    fn before(&self, call: &Call) -> Result<(), Status> {
        match call.peer_credentials() {
            Some(caller) if self.0.contains(&caller.uid) => Ok(()),
            _ => {
                logging::warn!("admin: refused {} for {}", call.method(), Caller(call));
                let why = "only root and the program's own user may do this";
                Err(Status::permission_denied(why))
            }
        }
    }
}

/// Who calls, for the log.
struct Caller<'a>(&'a Call);

impl fmt::Display for Caller<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.peer_credentials() {
            Some(it) => write!(f, "process {} of user {}", it.pid.unwrap_or(0), it.uid),
            None => f.write_str("somebody who is gone"),
        }
    }
}

struct Operator {
    program: Remote,
}

impl AdminService for Operator {
    fn status(&self, _: &Call, _: StatusRequest) -> Result<StatusReply, Status> {
        Ok(StatusReply {
            process: std::process::id(),
            phase: self.program.phase().to_string(),
            reason: self.reason(),
            in_flight: self.program.in_flight() as u64,
            description: self.program.describe(),
            ..Default::default()
        })
    }

    fn drain(&self, call: &Call, request: DrainRequest) -> Result<DrainReply, Status> {
        let mut why = format!("by {}", Caller(call));
        if !request.reason.is_empty() {
            why = format!("{} ({why})", request.reason);
        }
        logging::info!("admin: drain, {}", why.replace(char::is_control, " "));
        self.program.shutdown(why);
        Ok(DrainReply {
            reason: self.reason(),
            ..Default::default()
        })
    }

    fn upgrade(&self, call: &Call, _: UpgradeRequest) -> Result<UpgradeReply, Status> {
        logging::info!("admin: upgrade, by {}", Caller(call));
        match Upgrade::begin(&self.program) {
            Ok(process) => Ok(UpgradeReply {
                process,
                ..Default::default()
            }),
            Err(error) => {
                let code = match error {
                    UpgradeError::Starting | UpgradeError::Stopping => Code::Unavailable,
                    UpgradeError::UnderWay => Code::Aborted,
                    _ => Code::FailedPrecondition,
                };
                Err(Status::new(code, error.to_string()))
            }
        }
    }
}

impl Operator {
    fn reason(&self) -> String {
        let reason = self.program.reason();
        reason.map_or(String::new(), |it| it.to_string())
    }
}

impl ServerBuilder {
    /// Serves the [admin service](crate::admin), on a unix socket of its own. Default: off.
    pub fn admin(self, admin: Admin) -> Self {
        self.companion(Beside(admin))
    }
}
