// The greeter on the synchronous API of gRPC C++, with its defaults: the library's own threads poll and
// run handlers, and more are started when all are busy. Built by run.py.
//
//     server ADDRESS

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "greeter.grpc.pb.h"

using greeter::HelloReply;
using greeter::HelloRequest;
using greeter::ManyHellosRequest;
using grpc::ServerContext;
using grpc::Status;

static std::string hello(const std::string& name) {
  return "Hello, " + (name.empty() ? "you" : name) + "!";
}

class Polite final : public greeter::Greeter::Service {
  Status SayHello(ServerContext*, const HelloRequest* request, HelloReply* reply) override {
    if (request->think_ms() > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(request->think_ms()));
    }
    reply->set_text(hello(request->name()));
    return Status::OK;
  }

  Status SayManyHellos(ServerContext*, const ManyHellosRequest* request,
                       grpc::ServerWriter<HelloReply>* replies) override {
    HelloReply reply;
    for (uint32_t i = 0; i < request->count(); ++i) {
      reply.set_text(hello(request->name()));
      if (!replies->Write(reply)) return Status::CANCELLED;
    }
    return Status::OK;
  }

  Status GreetEverybody(ServerContext*, grpc::ServerReader<HelloRequest>* requests,
                        HelloReply* reply) override {
    std::string names;
    HelloRequest request;
    while (requests->Read(&request)) {
      if (!names.empty()) names += " and ";
      names += request.name();
    }
    reply->set_text(hello(names));
    return Status::OK;
  }
};

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  Polite polite;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(argv[1], grpc::InsecureServerCredentials());
  builder.RegisterService(&polite);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server) return 1;
  server->Wait();
}
