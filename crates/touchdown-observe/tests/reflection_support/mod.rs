//! Descriptors to be told of, and a caller who asks.

// Each test uses a part of it.
#![allow(dead_code)]

use std::thread;
use std::time::{Duration, Instant};

use touchdown::client::{CallOptions, Client, Replies, Requests};
use touchdown::protobuf::descriptor::{
    field_descriptor_proto, DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto,
    FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::protobuf::Message;
use touchdown::testing::TestServer;
use touchdown::{Call, Code, Server, ServerBuilder, Service, Status};
use touchdown_observe::reflection::Reflection;
use touchdown_observe::ObserveServer;

/// The messages that the crate was generated with.
mod own {
    include!(concat!(env!("OUT_DIR"), "/reflection/mod.rs"));
}

pub use own::v1_reflection::server_reflection_request::Message_request as Question;
pub use own::v1_reflection::server_reflection_response::Message_response as Answer;
pub use own::v1_reflection::{ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse};

pub const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// Long enough for a machine that has much else to do. No test waits for so long if it passes.
pub const LONG: Duration = Duration::from_secs(60);

pub const NOT_FOUND: i32 = Code::NotFound as i32;

/// Whether this becomes true.
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        if is_so() {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}

fn named<M: Message>(name: &str, set: impl Fn(&mut M, String)) -> M {
    let mut message = M::new();
    set(&mut message, name.to_owned());
    message
}

pub fn message(name: &str) -> DescriptorProto {
    named(name, DescriptorProto::set_name)
}

fn field(name: &str, number: i32) -> FieldDescriptorProto {
    let mut field = named(name, FieldDescriptorProto::set_name);
    field.set_number(number);
    field.set_type(field_descriptor_proto::Type::TYPE_STRING);
    field.set_label(field_descriptor_proto::Label::LABEL_OPTIONAL);
    field
}

fn extension(name: &str, number: i32, extendee: &str) -> FieldDescriptorProto {
    let mut field = field(name, number);
    field.set_extendee(extendee.to_owned());
    field
}

fn enumeration(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let mut one = named(name, EnumDescriptorProto::set_name);
    let value = |it: &&str| named(it, EnumValueDescriptorProto::set_name);
    one.value = values.iter().map(value).collect();
    one
}

pub fn service_of(name: &str, methods: &[&str]) -> ServiceDescriptorProto {
    let mut service = named(name, ServiceDescriptorProto::set_name);
    for method in methods {
        let mut one = named(method, MethodDescriptorProto::set_name);
        one.set_input_type(".demo.Outer".to_owned());
        one.set_output_type(".demo.Outer".to_owned());
        service.method.push(one);
    }
    service
}

pub fn file(name: &str, package: &str, imports: &[&str]) -> FileDescriptorProto {
    let mut file = named(name, FileDescriptorProto::set_name);
    file.set_package(package.to_owned());
    file.dependency = imports.iter().map(|it| (*it).to_owned()).collect();
    file
}

/// The last, demo.proto, has one of everything. It imports a file by two ways, and another package is inside of its own.
pub fn demo() -> Vec<FileDescriptorProto> {
    let mut inner = message("Inner");
    inner.field.push(field("deep", 1));
    let mut outer = message("Outer");
    outer.field = vec![field("text", 1), field("one", 2)];
    let choice = named("choice", OneofDescriptorProto::set_name);
    outer.oneof_decl.push(choice);
    outer.nested_type.push(inner);
    outer.enum_type.push(enumeration("Mood", &["GLAD", "SAD"]));
    let within = extension("within", 107, ".demo.base.Base");
    outer.extension.push(within);

    let imports = ["demo/left.proto", "demo/right.proto"];
    let mut demo = file("demo/demo.proto", "demo", &imports);
    demo.message_type = vec![outer, message("Outermost")];
    demo.enum_type.push(enumeration("Colour", &["RED", "BLUE"]));
    let beside = extension("beside", 105, ".demo.base.Base");
    demo.extension.push(beside);
    demo.service = vec![
        service_of("Greeter", &["SayHello", "Chat"]),
        service_of("Planned", &["Later"]),
    ];

    let mut base = file("demo/base.proto", "demo.base", &[]);
    base.message_type = vec![message("Base"), message("Plain")];
    vec![
        base,
        file("demo/left.proto", "demo", &["demo/base.proto"]),
        file("demo/right.proto", "demo", &["demo/base.proto"]),
        demo,
    ]
}

pub fn set(files: Vec<FileDescriptorProto>) -> Vec<u8> {
    let mut set = FileDescriptorSet::new();
    set.file = files;
    set.write_to_bytes().unwrap()
}

/// With a service that is described by [`demo`], and one that is not.
pub fn server_of(reflection: Reflection) -> ServerBuilder {
    let echo = |_: &Call, request: StringValue| Ok::<_, Status>(request);
    let greeter = Service::builder("demo.Greeter").unary("SayHello", echo);
    let bare = Service::builder("bare.Bare").unary("Say", echo);
    Server::builder()
        .workers(2)
        .service(greeter.build())
        .service(bare.build())
        .reflection(reflection)
}

/// One stream.
pub struct Talk {
    /// Its calls end with it.
    pub client: Client,
    pub requests: Requests<ServerReflectionRequest>,
    pub replies: Replies<ServerReflectionResponse>,
}

impl Talk {
    pub fn of(server: &TestServer, path: &'static str) -> Talk {
        let options = CallOptions::new().timeout(LONG);
        let client = server.client();
        let (requests, replies) = client.bidirectional(path, options).unwrap();
        Talk {
            client,
            requests,
            replies,
        }
    }

    pub fn send(&mut self, question: Question) {
        let request = ServerReflectionRequest {
            host: "somewhere".to_owned(),
            message_request: Some(question),
            ..Default::default()
        };
        self.requests.send(request).unwrap();
    }

    pub fn hear(&mut self) -> ServerReflectionResponse {
        self.replies.next().expect("the stream goes on").unwrap()
    }

    pub fn ask(&mut self, question: Question) -> Answer {
        self.send(question.clone());
        let response = self.hear();
        assert_eq!(response.valid_host, "somewhere");
        let echoed = response.original_request.unwrap();
        assert_eq!(echoed.message_request, Some(question));
        response.message_response.expect("an answer")
    }

    /// The names of the files that are sent, or the code of the error.
    pub fn files(&mut self, question: Question) -> Result<Vec<String>, i32> {
        let name = |file: &Vec<u8>| {
            let file = FileDescriptorProto::parse_from_bytes(file).unwrap();
            file.name().to_owned()
        };
        match self.ask(question) {
            Answer::FileDescriptorResponse(files) => {
                Ok(files.file_descriptor_proto.iter().map(name).collect())
            }
            Answer::ErrorResponse(error) => {
                assert!(!error.error_message.is_empty());
                Err(error.error_code)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn services(&mut self) -> Vec<String> {
        let question = Question::ListServices("*".to_owned());
        let Answer::ListServicesResponse(list) = self.ask(question) else {
            panic!("no list");
        };
        list.service.into_iter().map(|it| it.name).collect()
    }

    /// How the stream ends; `None` if all is well.
    pub fn code(mut self) -> Option<Code> {
        let error = self.replies.find_map(Result::err)?;
        Some(error.code())
    }
}

pub fn symbol(name: &str) -> Question {
    Question::FileContainingSymbol(name.to_owned())
}

pub fn by_name(name: &str) -> Question {
    Question::FileByFilename(name.to_owned())
}

pub fn of_extension(message: &str, number: i32) -> Question {
    Question::FileContainingExtension(ExtensionRequest {
        containing_type: message.to_owned(),
        extension_number: number,
        ..Default::default()
    })
}
