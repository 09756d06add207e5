//! What touchdown's tests call its servers with, on tonic:
//!
//!     touchdown-tonic-client interop ADDRESS CASE...
//!     touchdown-tonic-client conformance ADDRESS CASE...
//!     touchdown-tonic-client subscribe ADDRESS HEALTHY SLOW
//!
//! The first two write a line for each case that has passed.

mod conformance;
mod interop;
mod subscribe;

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A call that takes as long as this hangs.
pub const TIMEOUT: Duration = Duration::from_secs(30);

pub mod protos {
    pub mod testing {
        tonic::include_proto!("grpc.testing");
    }
    pub mod conformance {
        tonic::include_proto!("touchdown.conformance");
    }
    pub mod feed {
        tonic::include_proto!("touchdown.feed");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, address, rest @ ..] = arguments.as_slice() else {
        return Err("usage: PROGRAM ADDRESS ...".into());
    };
    let endpoint = Endpoint::new(format!("http://{address}"))?;
    if program == "subscribe" {
        return subscribe::run(endpoint, rest).await;
    }
    for case in rest {
        let channel = endpoint.connect().await?;
        let outcome = match program.as_str() {
            "interop" => interop::run(case, channel).await,
            "conformance" => conformance::run(case, channel).await,
            _ => return Err(format!("there is no {program}").into()),
        };
        outcome.map_err(|error| format!("{case}: {error}"))?;
        println!("passed {case}");
    }
    Ok(())
}

pub fn check_equal<T: PartialEq<U> + Debug, U: Debug>(seen: T, expected: U) -> Outcome {
    match seen == expected {
        true => Ok(()),
        false => Err(format!("{seen:?} is not {expected:?}").into()),
    }
}

/// The status of a call that must fail.
pub fn status_of<T>(result: Result<T, Status>) -> Outcome<Status> {
    match result {
        Ok(_) => Err("the call did not fail".into()),
        Err(status) => Ok(status),
    }
}

pub fn check_code<T>(result: Result<T, Status>, code: Code) -> Outcome {
    let status = status_of(result)?;
    match status.code() == code {
        true => Ok(()),
        false => Err(format!("{status:?} is not {code:?}").into()),
    }
}

pub fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

pub type TestClient = protos::testing::test_service_client::TestServiceClient<Channel>;
