package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// sign asks a controller for a certificate, as somebody would who holds a proxy's token and nothing else, and
// prints the gRPC code of the answer and what it says. It trusts whatever server answers: a thief would.
func sign(args []string) {
	set := flag.NewFlagSet("sign", flag.ExitOnError)
	controller := set.String("controller", "", "HOST:PORT")
	token := set.String("token", "", "what the caller says it is; empty: nothing")
	identity := set.String("identity", "", "the SPIFFE ID that is wanted")
	_ = set.Parse(args)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fail(err.Error())
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		fail(err.Error())
	}
	// SignRequest of heddle.config.v1: csr = 1, identity = 2.
	request := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), csr)
	request = protowire.AppendString(protowire.AppendTag(request, 2, protowire.BytesType), *identity)
	conn, err := grpc.NewClient(*controller, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		fail(err.Error())
	}
	within, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	if *token != "" {
		within = metadata.AppendToOutgoingContext(within, "authorization", "Bearer "+*token)
	}
	var answer []byte
	err = conn.Invoke(within, "/heddle.config.v1.Identity/Sign", &request, &answer, grpc.ForceCodec(raw{}))
	said := status.Convert(err)
	fmt.Println(said.Code(), len(answer), said.Message())
}

// raw passes messages on as they are: for one call nobody needs generated code.
type raw struct{}

var _ encoding.Codec = raw{}

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func (raw) Name() string { return "proto" }
