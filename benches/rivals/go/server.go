// The greeter on grpc-go with its defaults: a goroutine for each call, a processor for each core. Built
// by run.py, without modules, from Debian's packages.
//
//	server ADDRESS
package main

import (
	"context"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"bench/greeter"
)

type polite struct{}

func hello(name string) *greeter.HelloReply {
	if name == "" {
		name = "you"
	}
	return &greeter.HelloReply{Text: "Hello, " + name + "!"}
}

func (polite) SayHello(_ context.Context, request *greeter.HelloRequest) (*greeter.HelloReply, error) {
	if request.ThinkMs > 0 {
		time.Sleep(time.Duration(request.ThinkMs) * time.Millisecond)
	}
	return hello(request.Name), nil
}

func (polite) SayManyHellos(request *greeter.ManyHellosRequest, replies greeter.Greeter_SayManyHellosServer) error {
	for i := uint32(0); i < request.Count; i++ {
		if err := replies.Send(hello(request.Name)); err != nil {
			return err
		}
	}
	return nil
}

func (polite) GreetEverybody(requests greeter.Greeter_GreetEverybodyServer) error {
	var names []string
	for {
		request, err := requests.Recv()
		if err == io.EOF {
			return requests.SendAndClose(hello(strings.Join(names, " and ")))
		}
		if err != nil {
			return err
		}
		names = append(names, request.Name)
	}
}

func (polite) Chat(requests greeter.Greeter_ChatServer) error {
	for {
		request, err := requests.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := requests.Send(hello(request.Name)); err != nil {
			return err
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	greeter.RegisterGreeterServer(server, polite{})
	log.Fatal(server.Serve(listener))
}
