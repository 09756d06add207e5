//! A server with reflection, asked by touchdown's own client, and, where they are installed, by `buf` and Python.

#![cfg(feature = "reflection")]

mod reflection_support;

use std::thread;
use std::time::{Duration, Instant};

use reflection_support::*;
use touchdown::client::CallOptions;
use touchdown::lifecycle::{exit_code, Lifecycle, Plan};
use touchdown::protobuf::descriptor::FileDescriptorProto;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::protobuf::Message;
use touchdown::testing::TestServer;
use touchdown::{Call, Code, Interceptor, Status};
use touchdown_observe::reflection::Reflection;

/// How many services `started` has.
const SERVICES: usize = 5;

fn started() -> TestServer {
    let reflection = Reflection::new().descriptors(set(demo()));
    TestServer::start(server_of(reflection)).unwrap()
}

#[test]
fn the_services_that_are_served_are_listed_in_both_versions() {
    let server = started();
    for path in [V1, V1ALPHA] {
        let services = [
            // No descriptor tells of it.
            "bare.Bare",
            // demo.Planned is described, and not served.
            "demo.Greeter",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        assert_eq!(Talk::of(&server, path).services(), services);
    }
}

#[test]
fn a_file_comes_with_its_imports_once_on_a_stream() {
    let server = started();
    let mut talk = Talk::of(&server, V1);
    let all = [
        "demo/demo.proto",
        "demo/left.proto",
        "demo/right.proto",
        "demo/base.proto",
    ];
    assert_eq!(talk.files(by_name("demo/demo.proto")).unwrap(), all);
    // What was asked for comes each time.
    assert_eq!(talk.files(symbol("demo.Greeter")).unwrap(), all[..1]);
    assert_eq!(talk.files(by_name("demo/left.proto")).unwrap(), all[1..2]);
    let mut other = Talk::of(&server, V1);
    assert_eq!(other.files(by_name("demo/right.proto")).unwrap(), all[2..]);
    assert_eq!(
        other.files(by_name("demo/demo.proto")).unwrap(),
        ["demo/demo.proto", "demo/left.proto"]
    );
}

#[test]
fn a_file_is_sent_as_it_was_given() {
    let server = started();
    let mut talk = Talk::of(&server, V1ALPHA);
    let Answer::FileDescriptorResponse(files) = talk.ask(by_name("demo/demo.proto")) else {
        panic!("no files");
    };
    let given = demo().pop().unwrap().write_to_bytes().unwrap();
    assert_eq!(files.file_descriptor_proto[0], given);
}

#[test]
fn every_kind_of_symbol_is_found() {
    let server = started();
    let demo = "demo/demo.proto";
    let symbols = [
        ("demo.Greeter", demo),
        ("demo.Greeter.SayHello", demo),
        ("demo.Planned.Later", demo),
        ("demo.Outer", demo),
        ("demo.Outermost", demo),
        ("demo.Outer.text", demo),
        ("demo.Outer.choice", demo),
        ("demo.Outer.Inner", demo),
        ("demo.Outer.Inner.deep", demo),
        ("demo.Outer.Mood", demo),
        ("demo.Colour", demo),
        // Values are in the scope of their enum, as protobuf has it, and in their enum, as some tools have it.
        ("demo.Outer.SAD", demo),
        ("demo.Outer.Mood.SAD", demo),
        ("demo.BLUE", demo),
        ("demo.Colour.BLUE", demo),
        ("demo.beside", demo),
        ("demo.Outer.within", demo),
        ("demo.base.Base", "demo/base.proto"),
        // What no program has to describe.
        ("grpc.health.v1.Health.Check", "grpc/health/v1/health.proto"),
        (
            "grpc.reflection.v1.ServerReflection",
            "grpc/reflection/v1/reflection.proto",
        ),
        (
            "grpc.reflection.v1alpha.ServerReflectionRequest",
            "grpc/reflection/v1alpha/reflection.proto",
        ),
    ];
    for (name, file) in symbols {
        let files = Talk::of(&server, V1).files(symbol(name));
        assert_eq!(files.expect(name)[0], file, "{name}");
    }
}

#[test]
fn what_is_not_there_is_an_error_and_the_stream_goes_on() {
    let server = started();
    let mut talk = Talk::of(&server, V1);
    let long = "a".repeat(10_000);
    let dots = ".".repeat(10_000);
    let path = "demo.Outer.".repeat(900);
    let nothing = "demo demo. .demo.Outer demo..Outer demo.Outer. demo.Out demo.Outers demo.outer Outer \
        demo.Greeter/SayHello demo.Greeter.SayHello.x demo.Outer.text.x demo.Colour.SAD demo.SAD demo.Outer.GLAD.x \
        demo.base demo.base.Outer demo.Base bare.Bare demo.\u{f6} demo.Outer\0 \0 . .. *";
    for name in nothing.split(' ').chain(["", &long, &dots, &path]) {
        assert_eq!(talk.files(symbol(name)), Err(NOT_FOUND), "{name:?}");
        assert_eq!(talk.files(by_name(name)), Err(NOT_FOUND), "{name:?}");
        let extension = talk.files(of_extension(name, 105));
        assert_eq!(extension, Err(NOT_FOUND), "{name:?}");
    }
    for number in [0, -1, 104, i32::MAX, i32::MIN] {
        let question = of_extension("demo.base.Base", number);
        assert_eq!(talk.files(question), Err(NOT_FOUND), "{number}");
    }
    assert_eq!(talk.services().len(), SERVICES);
}

#[test]
fn extensions_are_found_by_message_and_number() {
    let server = started();
    let mut talk = Talk::of(&server, V1);
    for number in [105, 107] {
        let files = talk.files(of_extension("demo.base.Base", number));
        assert_eq!(files.unwrap()[0], "demo/demo.proto");
    }
    let mut numbers = |message: &str| {
        let question = Question::AllExtensionNumbersOfType(message.to_owned());
        match talk.ask(question) {
            Answer::AllExtensionNumbersResponse(all) => {
                assert_eq!(all.base_type_name, message);
                Ok(all.extension_number)
            }
            Answer::ErrorResponse(error) => Err(error.error_code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(numbers("demo.base.Base"), Ok(vec![105, 107]));
    assert_eq!(numbers("demo.base.Plain"), Ok(vec![]));
    // An enum, a service, and what there is not.
    for name in ["demo.Colour", "demo.Greeter", "demo.Nothing", ""] {
        assert_eq!(numbers(name), Err(NOT_FOUND), "{name}");
    }
}

#[test]
fn a_request_without_a_question_is_an_error_and_the_stream_goes_on() {
    let server = started();
    let mut talk = Talk::of(&server, V1);
    talk.requests.send(ServerReflectionRequest::new()).unwrap();
    let Some(Answer::ErrorResponse(error)) = talk.hear().message_response else {
        panic!("no error");
    };
    assert_eq!(error.error_code, Code::InvalidArgument as i32);
    assert_eq!(talk.services().len(), SERVICES);
}

#[test]
fn a_request_that_is_too_large_is_not_sent_back() {
    let server = started();
    let mut talk = Talk::of(&server, V1);
    talk.send(symbol(&"x".repeat(1 << 20)));
    let response = talk.hear();
    assert!(response.original_request.is_none());
    assert!(response.compute_size() < 200);
    let Some(Answer::ErrorResponse(error)) = response.message_response else {
        panic!("no error");
    };
    assert_eq!(error.error_code, Code::InvalidArgument as i32);
    assert_eq!(error.error_message, "a request has 16 KiB at the most");
    assert_eq!(talk.services().len(), SERVICES);
}

#[test]
fn a_name_that_is_no_text_ends_its_stream_alone() {
    let server = started();
    let mut bad = Talk::of(&server, V1);
    let mut request = ServerReflectionRequest::new();
    let fields = request.special_fields.mut_unknown_fields();
    fields.add_length_delimited(4, vec![0xff, 0xfe]);
    // It may end before the client knows that the request is on its way.
    let sent = bad.requests.send(request);
    let code = sent.map_or_else(|it| Some(it.code()), |()| bad.code());
    assert_eq!(code, Some(Code::Internal));
    assert_eq!(Talk::of(&server, V1).services().len(), SERVICES);
}

#[test]
fn ten_thousand_questions_on_a_stream_are_answered_in_their_order() {
    const QUESTIONS: usize = 10_000;
    let server = started();
    let Talk {
        client: _client,
        mut requests,
        replies,
    } = Talk::of(&server, V1);
    let asking = thread::spawn(move || {
        for i in 0..QUESTIONS {
            let question = match i % 4 {
                0 => symbol(&format!("demo.Nothing{i}")),
                1 => symbol("demo.Outer.Inner"),
                2 => of_extension("demo.base.Base", 105),
                _ => Question::ListServices(String::new()),
            };
            let request = ServerReflectionRequest {
                host: i.to_string(),
                message_request: Some(question),
                ..Default::default()
            };
            requests.send(request).unwrap();
        }
    });
    let mut answered = 0;
    for response in replies {
        let response = response.unwrap();
        assert_eq!(response.valid_host, answered.to_string());
        let is_as_asked = match (answered % 4, response.message_response.unwrap()) {
            (0, Answer::ErrorResponse(error)) => error.error_code == NOT_FOUND,
            (1 | 2, Answer::FileDescriptorResponse(files)) => {
                // The imports went along with the first.
                let expected = if answered == 1 { 4 } else { 1 };
                files.file_descriptor_proto.len() == expected
            }
            (3, Answer::ListServicesResponse(list)) => list.service.len() == SERVICES,
            _ => false,
        };
        assert!(is_as_asked, "{answered}");
        answered += 1;
    }
    asking.join().unwrap();
    assert_eq!(answered, QUESTIONS);
}

#[test]
fn quiet_streams_hold_no_worker() {
    const STREAMS: usize = 100;
    let server = started();
    let mut talks: Vec<Talk> = (0..STREAMS).map(|_| Talk::of(&server, V1)).collect();
    for talk in &mut talks {
        assert_eq!(talk.services().len(), SERVICES);
    }
    let request = StringValue::new();
    let options = CallOptions::new().timeout(LONG);
    let reply: Result<StringValue, Status> =
        server
            .client()
            .unary("/demo.Greeter/SayHello", &request, options);
    assert_eq!(reply, Ok(request));
    let is_quiet = || {
        let load = server.load();
        (load.busy, load.streams, load.waiting) == (0, 0, 0)
    };
    assert!(eventually(is_quiet), "{:?}", server.load());
    assert!(eventually(|| server.in_flight() == STREAMS));
}

#[test]
fn quiet_streams_do_not_hold_a_drain() {
    let grace = Duration::from_secs(300);
    let plan = Plan::default().with_lame_duck(Duration::ZERO);
    let lifecycle = Lifecycle::builder().plan(plan.with_grace_period(grace));
    let reflection = Reflection::new().descriptors(set(demo()));
    let server = TestServer::start(server_of(reflection).lifecycle(lifecycle)).unwrap();
    let mut talks: Vec<Talk> = (0..10).map(|_| Talk::of(&server, V1)).collect();
    for talk in &mut talks {
        assert_eq!(talk.services().len(), SERVICES);
    }
    let began = Instant::now();
    let report = server.stop();
    assert!(began.elapsed() < grace / 5, "{:?}", began.elapsed());
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report:?}");
    for talk in talks {
        assert_eq!(talk.code(), Some(Code::Unavailable));
    }
}

#[test]
fn interceptors_stand_around_it() {
    struct Nobody;

    impl Interceptor for Nobody {
        fn before(&self, call: &Call) -> Result<(), Status> {
            match call.service().starts_with("grpc.reflection.") {
                true => Err(Status::permission_denied("not for strangers")),
                false => Ok(()),
            }
        }
    }

    let builder = server_of(Reflection::new()).interceptor(Nobody);
    let server = TestServer::start(builder).unwrap();
    let code = Talk::of(&server, V1).code();
    assert_eq!(code, Some(Code::PermissionDenied));
}

#[test]
fn what_is_in_several_sets_is_served_once() {
    let empty = |go: &str| {
        let mut file = file("google/protobuf/empty.proto", "google.protobuf", &[]);
        file.message_type.push(message("Empty"));
        let options = file.options.mut_or_insert_default();
        options.set_go_package(go.to_owned());
        file
    };
    let mut first = demo();
    first.push(empty("first"));
    let second = vec![demo().swap_remove(0), empty("second")];
    let reflection = Reflection::new().descriptors(set(first));
    let reflection = reflection.descriptors(set(second));
    let server = TestServer::start(server_of(reflection)).unwrap();
    let mut talk = Talk::of(&server, V1);
    let Answer::FileDescriptorResponse(files) = talk.ask(symbol("google.protobuf.Empty")) else {
        panic!("no file");
    };
    let sent = FileDescriptorProto::parse_from_bytes(&files.file_descriptor_proto[0]).unwrap();
    assert_eq!(sent.options.go_package(), "first");
    let files = talk.files(symbol("demo.Greeter"));
    assert_eq!(files.unwrap().len(), 4);
}

#[test]
fn what_the_program_describes_itself_counts() {
    let mut health = file("my/health.proto", "grpc.health.v1", &[]);
    health.service.push(service_of("Health", &["Check"]));
    let mut files = demo();
    files.push(health);
    let reflection = Reflection::new().descriptors(set(files));
    let server = TestServer::start(server_of(reflection)).unwrap();
    let mut talk = Talk::of(&server, V1);
    let files = talk.files(symbol("grpc.health.v1.Health"));
    assert_eq!(files.unwrap(), ["my/health.proto"]);
    let files = talk.files(by_name("grpc/health/v1/health.proto"));
    assert_eq!(files, Err(NOT_FOUND));
}
