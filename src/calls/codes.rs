//! The status codes that the server gives by itself. See gRPC's
//! [`statuscodes.md`](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).

pub(super) const CANCELLED: i32 = 1;
pub(super) const DEADLINE_EXCEEDED: i32 = 4;
pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
pub(super) const UNIMPLEMENTED: i32 = 12;
pub(super) const INTERNAL: i32 = 13;
pub(super) const UNAVAILABLE: i32 = 14;
