// A client of clipd: client TARGET embed|stream INPUT..., or client TARGET classify LABELS PICTURE...
//
// TARGET is `dns:///HOST:PORT`; an INPUT is the path of a picture, or a text; LABELS is a file with one a line.
// CLIPD_CA (certificates to trust; without it the call goes in the clear), CLIPD_API_KEY and CLIPD_TIMEOUT (seconds) are
// read from the environment. `go generate` makes the stubs, with buf.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "clipd.example/client/clip/v1"
)

//go:generate buf generate ../../../proto

// How often in a row a stream may end without an answer.
const fruitlessStreams = 5

// Calls are spread over all addresses of the name. What a server refuses, or loses, is sent again: a call changes
// nothing, so it may run twice. A hint of the server when to try (grpc-retry-pushback-ms) is kept to.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "clip.v1.ClipService"}],
    "retryPolicy": {
      "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }]
}`

// An API key, sent with every call, and only over TLS.
type bearer string

func (key bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }

func connect(target string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		// Otherwise the name is asked for a service config too, and a slow DNS delays the first call.
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(
			// Otherwise answers of more than 4 MB are refused here; the server's own limit is 16 MB.
			grpc.MaxCallRecvMsgSize(32<<20),
			// It helps texts, vectors and raw pixels; pictures in files are compressed already.
			grpc.UseCompressor(gzip.Name),
		),
	}
	if ca, found := os.LookupEnv("CLIPD_CA"); found {
		tls, err := credentials.NewClientTLSFromFile(ca, "")
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithTransportCredentials(tls))
		if key, found := os.LookupEnv("CLIPD_API_KEY"); found {
			options = append(options, grpc.WithPerRPCCredentials(bearer(key)))
		}
	} else {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return grpc.NewClient(target, options...)
}

// A picture, if it is the path of a file, and otherwise a text.
func content(source string) *pb.Input {
	encoded, err := os.ReadFile(source)
	if err != nil {
		return &pb.Input{Content: &pb.Input_Text{Text: source}}
	}
	return &pb.Input{Content: &pb.Input_Image{Image: picture(encoded)}}
}

func picture(encoded []byte) *pb.Image {
	return &pb.Image{Source: &pb.Image_Encoded{Encoded: encoded}}
}

// What Embed and StreamEmbed have for an input: one of the two.
type result interface {
	GetEmbedding() *pb.Embedding
	GetError() *pb.Error
}

func embed(clip pb.ClipServiceClient, sources []string, timeout time.Duration) ([]result, error) {
	request := &pb.EmbedRequest{}
	for _, source := range sources {
		request.Inputs = append(request.Inputs, content(source))
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	response, err := clip.Embed(ctx, request)
	if err != nil {
		return nil, err
	}
	var results []result
	for _, each := range response.Results {
		results = append(results, each)
	}
	return results, nil
}

// The results in the order of the inputs. A stream that ends early is opened again for what has no answer.
func stream(clip pb.ClipServiceClient, sources []string, timeout time.Duration) ([]result, error) {
	results := make([]result, len(sources))
	for fruitless := 0; ; {
		var unanswered []int
		for tag := range sources {
			if results[tag] == nil {
				unanswered = append(unanswered, tag)
			}
		}
		if len(unanswered) == 0 {
			return results, nil
		}
		answered, err := streamOnce(clip, sources, unanswered, results, timeout)
		// The server stops, or the stream was old; or it has no room for another one.
		again := err == nil || status.Code(err) == codes.Unavailable || status.Code(err) == codes.ResourceExhausted
		fruitless++
		if answered > 0 {
			fruitless = 0
		}
		if !again || fruitless == fruitlessStreams {
			return nil, errors.Join(errors.New("inputs are without an answer"), err)
		}
		time.Sleep(time.Duration(fruitless) * 100 * time.Millisecond)
	}
}

// Sends what is unanswered, fills in the results that come, and returns how many came.
func streamOnce(
	clip pb.ClipServiceClient, sources []string, unanswered []int, results []result, timeout time.Duration,
) (answered int, err error) {
	// Ends the sender too.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	calls, err := clip.StreamEmbed(ctx)
	if err != nil {
		return 0, err
	}
	go func() {
		for _, tag := range unanswered {
			request := &pb.StreamEmbedRequest{
				Tag: uint64(tag), Input: content(sources[tag]), Timeout: durationpb.New(timeout),
			}
			// It waits while the server takes no more. Why a stream has ended, Recv says.
			if calls.Send(request) != nil {
				return
			}
		}
		calls.CloseSend()
	}()
	for {
		response, err := calls.Recv()
		if errors.Is(err, io.EOF) {
			return answered, nil
		}
		if err != nil {
			return answered, err
		}
		// The worker that had it was lost.
		if codes.Code(response.GetError().GetCode()) != codes.Unavailable {
			results[response.Tag] = response
			answered++
		}
	}
}

// How similar each is to the first. Its own error stands in the place of one that has none.
func showEmbeddings(sources []string, results []result) (failed int) {
	first := results[0].GetEmbedding().GetValues()
	for place, each := range results {
		if problem := each.GetError(); problem != nil {
			failed++
			fmt.Printf("error\t%s\t%s: %s\n", sources[place], problem.Field, problem.Message)
			continue
		}
		// Embeddings have unit length, so their dot product is the cosine.
		cosine := 0.0
		for n, value := range each.GetEmbedding().Values {
			cosine += float64(value) * float64(first[n])
		}
		fmt.Printf("%.3f\t%s\n", cosine, sources[place])
	}
	return failed
}

// Shows the best label of each, and how many there are.
func classify(clip pb.ClipServiceClient, labels string, paths []string, timeout time.Duration) (failed int, err error) {
	lines, err := os.ReadFile(labels)
	if err != nil {
		return 0, err
	}
	request := &pb.ClassifyRequest{Labels: strings.Split(strings.TrimSpace(string(lines)), "\n")}
	for _, path := range paths {
		encoded, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		request.Images = append(request.Images, picture(encoded))
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	response, err := clip.Classify(ctx, request)
	if err != nil {
		return 0, err
	}
	for place, each := range response.Results {
		if problem := each.GetError(); problem != nil {
			failed++
			fmt.Printf("error\t%s\t%s: %s\n", paths[place], problem.Field, problem.Message)
			continue
		}
		predictions := each.GetPredictions().Predictions
		fmt.Printf("%s\t%s\t%d\n", predictions[0].Label, paths[place], len(predictions))
	}
	return failed, nil
}

func run(target, call string, arguments []string) (failed int, err error) {
	timeout := 10 * time.Second
	if asked, found := os.LookupEnv("CLIPD_TIMEOUT"); found {
		seconds, err := strconv.ParseFloat(asked, 64)
		if err != nil {
			return 0, err
		}
		timeout = time.Duration(seconds * float64(time.Second))
	}
	channel, err := connect(target)
	if err != nil {
		return 0, err
	}
	defer channel.Close()
	clip := pb.NewClipServiceClient(channel)

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	model, err := clip.GetModel(ctx, &pb.GetModelRequest{})
	if err != nil {
		return 0, err
	}
	fmt.Printf("model\t%s\t%s\n", model.Name, model.Fingerprint)

	var results []result
	switch call {
	case "embed":
		results, err = embed(clip, arguments, timeout)
	case "stream":
		results, err = stream(clip, arguments, timeout)
	case "classify":
		return classify(clip, arguments[0], arguments[1:], timeout)
	default:
		err = fmt.Errorf("no such call: %s", call)
	}
	if err != nil {
		return 0, err
	}
	return showEmbeddings(arguments, results), nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("client TARGET embed|stream INPUT... or client TARGET classify LABELS PICTURE...")
	}
	failed, err := run(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		log.Fatal(err)
	}
	if failed > 0 {
		os.Exit(1)
	}
}
