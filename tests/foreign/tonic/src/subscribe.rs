use tonic::transport::Endpoint;

use crate::Outcome;

pub async fn run(_: Endpoint, _: &[String]) -> Outcome {
    Ok(())
}
