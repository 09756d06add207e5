//! One caller's stream of questions.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use touchdown::protobuf::{Message, MessageField};
use touchdown::{Code, Status, StreamHandler, StreamReplies};

use super::catalog::{Catalog, Sent};
use super::own::v1_reflection::{
    server_reflection_request::Message_request as Question,
    server_reflection_response::Message_response as Answer, ErrorResponse, ExtensionNumberResponse,
    FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse,
};

/// How large a question may be, in bytes. No compiler has names of that length. Larger ones are not sent back, so that
/// streams that are not read hold little.
const QUESTION: u64 = 16 << 10;

/// What there is to tell.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) catalog: Catalog,
    /// The names of the services that are served.
    pub(super) services: BTreeSet<&'static str>,
}

#[derive(Debug)]
pub(super) struct Session {
    known: Arc<OnceLock<Known>>,
    sent: Sent,
}

impl Session {
    pub(super) fn new(known: Arc<OnceLock<Known>>) -> Session {
        Session {
            known,
            sent: Sent::default(),
        }
    }

    fn answer(&mut self, question: Option<&Question>) -> Result<Answer, ErrorResponse> {
        let Some(Known { catalog, services }) = self.known.get() else {
            return Err(error(Code::Unavailable, "the server is starting"));
        };
        let file = match question {
            Some(Question::FileByFilename(name)) => catalog
                .named(name)
                .ok_or_else(|| not_found(&format!("file {name:?}")))?,
            Some(Question::FileContainingSymbol(symbol)) => catalog
                .declaring(symbol)
                .ok_or_else(|| not_found(&format!("symbol {symbol:?}")))?,
            Some(Question::FileContainingExtension(wanted)) => {
                let (message, number) = (&wanted.containing_type, wanted.extension_number);
                let what = || format!("extension {number} of {message:?}");
                let found = catalog.extending(message, number);
                found.ok_or_else(|| not_found(&what()))?
            }
            Some(Question::AllExtensionNumbersOfType(message)) => {
                let numbers = catalog.extension_numbers(message);
                let numbers = numbers.ok_or_else(|| not_found(&format!("message {message:?}")))?;
                return Ok(Answer::AllExtensionNumbersResponse(
                    ExtensionNumberResponse {
                        base_type_name: message.clone(),
                        extension_number: numbers.into_iter().collect(),
                        ..Default::default()
                    },
                ));
            }
            Some(Question::ListServices(_)) => {
                let service = |name: &&str| ServiceResponse {
                    name: (*name).to_owned(),
                    ..Default::default()
                };
                return Ok(Answer::ListServicesResponse(ListServiceResponse {
                    service: services.iter().map(service).collect(),
                    ..Default::default()
                }));
            }
            _ => {
                let text = "the request asks for nothing that this server knows of";
                return Err(error(Code::InvalidArgument, text));
            }
        };
        let files = catalog.with_imports(file, &mut self.sent);
        Ok(Answer::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: files.into_iter().map(<[u8]>::to_vec).collect(),
            ..Default::default()
        }))
    }
}

impl StreamHandler<ServerReflectionRequest, ServerReflectionResponse> for Session {
    fn request(
        &mut self,
        request: ServerReflectionRequest,
        replies: &StreamReplies<ServerReflectionResponse>,
    ) -> Result<(), Status> {
        let mut response = ServerReflectionResponse::new();
        let answer = if request.compute_size() > QUESTION {
            let text = format!("a request has {} KiB at the most", QUESTION >> 10);
            Err(error(Code::InvalidArgument, &text))
        } else {
            let answer = self.answer(request.message_request.as_ref());
            response.valid_host.clone_from(&request.host);
            response.original_request = MessageField::some(request);
            answer
        };
        response.message_response = Some(answer.unwrap_or_else(Answer::ErrorResponse));
        replies.send(&response)
    }
}

fn not_found(what: &str) -> ErrorResponse {
    error(Code::NotFound, &format!("there is no {what}"))
}

fn error(code: Code, text: &str) -> ErrorResponse {
    ErrorResponse {
        error_code: code as i32,
        error_message: text.to_owned(),
        ..Default::default()
    }
}
