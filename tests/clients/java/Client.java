import clip.v1.Clip.ClassifyRequest;
import clip.v1.Clip.ClassifyResult;
import clip.v1.Clip.EmbedRequest;
import clip.v1.Clip.EmbedResult;
import clip.v1.Clip.Embedding;
import clip.v1.Clip.Error;
import clip.v1.Clip.GetModelRequest;
import clip.v1.Clip.GetModelResponse;
import clip.v1.Clip.Image;
import clip.v1.Clip.Input;
import clip.v1.Clip.StreamEmbedRequest;
import clip.v1.Clip.StreamEmbedResponse;
import clip.v1.ClipServiceGrpc;
import clip.v1.ClipServiceGrpc.ClipServiceBlockingStub;
import clip.v1.ClipServiceGrpc.ClipServiceStub;
import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;

/**
 * A client of clipd: TARGET embed|stream INPUT..., or TARGET classify LABELS PICTURE...
 *
 * <p>TARGET is {@code dns:///HOST:PORT}; an INPUT is the path of a picture, or a text; LABELS is a file with one a
 * line. CLIPD_CA (certificates to trust; without it the call goes in the clear), CLIPD_API_KEY and CLIPD_TIMEOUT
 * (seconds) are read from the environment.
 */
public final class Client {
  /** How often in a row a stream may end without an answer. */
  private static final int FRUITLESS = 5;

  /**
   * Calls are spread over all addresses of the name. What a server refuses, or loses, is sent again: a call changes
   * nothing, so it may run twice. A hint of the server when to try (grpc-retry-pushback-ms) is kept to.
   */
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
          "methodConfig",
              List.of(
                  Map.of(
                      "name", List.of(Map.of("service", "clip.v1.ClipService")),
                      "retryPolicy",
                          Map.of(
                              "maxAttempts", 5.0,
                              "initialBackoff", "0.1s",
                              "maxBackoff", "2s",
                              "backoffMultiplier", 2.0,
                              "retryableStatusCodes", List.of("UNAVAILABLE", "RESOURCE_EXHAUSTED")))));

  private static final long TIMEOUT_MILLIS =
      (long) (1000 * Double.parseDouble(System.getenv().getOrDefault("CLIPD_TIMEOUT", "10")));

  private final ManagedChannel channel;

  private Client(String target) throws IOException {
    channel =
        Grpc.newChannelBuilder(target, credentials())
            .defaultServiceConfig(SERVICE_CONFIG)
            .enableRetry()
            // Otherwise answers of more than 4 MB are refused here; the server's own limit is 16 MB.
            .maxInboundMessageSize(32 << 20)
            .build();
  }

  /** TLS with the certificates of CLIPD_CA, and the key over it; otherwise in the clear, and without the key. */
  private static ChannelCredentials credentials() throws IOException {
    String ca = System.getenv("CLIPD_CA");
    String key = System.getenv("CLIPD_API_KEY");
    if (ca == null) {
      return InsecureChannelCredentials.create();
    }
    ChannelCredentials tls = TlsChannelCredentials.newBuilder().trustManager(Path.of(ca).toFile()).build();
    return key == null ? tls : CompositeChannelCredentials.create(tls, new Bearer(key));
  }

  /** An API key, sent with every call. */
  private static final class Bearer extends CallCredentials {
    private final Metadata headers = new Metadata();

    Bearer(String key) {
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      applier.apply(headers);
    }
  }

  /** One call, with its deadline. Compression helps texts, vectors and raw pixels; pictures are compressed already. */
  private ClipServiceBlockingStub clip() {
    return ClipServiceGrpc.newBlockingStub(channel)
        .withCompression("gzip")
        .withDeadlineAfter(TIMEOUT_MILLIS, TimeUnit.MILLISECONDS);
  }

  private List<EmbedResult> embed(List<String> sources) {
    EmbedRequest.Builder request = EmbedRequest.newBuilder();
    sources.forEach(source -> request.addInputs(input(source)));
    return clip().embed(request.build()).getResultsList();
  }

  /** The results in the order of the inputs. A stream that ends early is opened again for what has no answer. */
  private List<EmbedResult> stream(List<String> sources) throws InterruptedException {
    EmbedResult[] results = new EmbedResult[sources.size()];
    for (int fruitless = 0; ; ) {
      int[] unanswered = IntStream.range(0, results.length).filter(tag -> results[tag] == null).toArray();
      if (unanswered.length == 0) {
        return List.of(results);
      }
      // A stream has no deadline of its own: its inputs have.
      Stream stream = new Stream(sources, unanswered, results);
      ClipServiceStub clip = ClipServiceGrpc.newStub(channel).withCompression("gzip");
      clip.streamEmbed(stream);
      Status end = stream.end.join();
      // The server stops, or the stream was old; or it has no room for another one.
      boolean again =
          switch (end.getCode()) {
            case OK, UNAVAILABLE, RESOURCE_EXHAUSTED -> true;
            default -> false;
          };
      fruitless = stream.answered > 0 ? 0 : fruitless + 1;
      if (!again || fruitless == FRUITLESS) {
        throw end.augmentDescription("inputs are without an answer").asRuntimeException();
      }
      Thread.sleep(100L * fruitless);
    }
  }

  /** Sends what is unanswered, as the server takes it, and fills in the results that come. */
  private static final class Stream implements ClientResponseObserver<StreamEmbedRequest, StreamEmbedResponse> {
    private final List<String> sources;
    private final Iterator<Integer> unanswered;
    private final EmbedResult[] results;
    private boolean halfClosed;
    int answered;
    final CompletableFuture<Status> end = new CompletableFuture<>();

    Stream(List<String> sources, int[] unanswered, EmbedResult[] results) {
      this.sources = sources;
      this.unanswered = Arrays.stream(unanswered).iterator();
      this.results = results;
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<StreamEmbedRequest> requests) {
      requests.setOnReadyHandler(
          () -> {
            while (requests.isReady() && unanswered.hasNext()) {
              requests.onNext(request(unanswered.next()));
            }
            if (!unanswered.hasNext() && !halfClosed) {
              halfClosed = true;
              requests.onCompleted();
            }
          });
    }

    private StreamEmbedRequest request(int tag) {
      Duration timeout =
          Duration.newBuilder()
              .setSeconds(TIMEOUT_MILLIS / 1000)
              .setNanos((int) (TIMEOUT_MILLIS % 1000) * 1_000_000)
              .build();
      return StreamEmbedRequest.newBuilder()
          .setTag(tag)
          .setInput(input(sources.get(tag)))
          .setTimeout(timeout)
          .build();
    }

    @Override
    public void onNext(StreamEmbedResponse response) {
      EmbedResult.Builder result = EmbedResult.newBuilder();
      switch (response.getResultCase()) {
        case EMBEDDING -> result.setEmbedding(response.getEmbedding());
        case ERROR -> result.setError(response.getError());
        default -> {}
      }
      // The worker that had it was lost.
      if (response.getError().getCode() != Status.Code.UNAVAILABLE.value()) {
        results[(int) response.getTag()] = result.build();
        answered++;
      }
    }

    @Override
    public void onError(Throwable error) {
      end.complete(Status.fromThrowable(error));
    }

    @Override
    public void onCompleted() {
      end.complete(Status.OK);
    }
  }

  private List<ClassifyResult> classify(String labels, List<String> pictures) throws IOException {
    ClassifyRequest.Builder request = ClassifyRequest.newBuilder().addAllLabels(Files.readAllLines(Path.of(labels)));
    pictures.forEach(picture -> request.addImages(image(Path.of(picture))));
    return clip().classify(request.build()).getResultsList();
  }

  /** A picture, if it is the path of a file, and otherwise a text. */
  private static Input input(String source) {
    try {
      if (Files.isRegularFile(Path.of(source))) {
        return Input.newBuilder().setImage(image(Path.of(source))).build();
      }
    } catch (InvalidPathException notAPath) {
      // A text.
    }
    return Input.newBuilder().setText(source).build();
  }

  private static Image image(Path path) {
    try {
      return Image.newBuilder().setEncoded(ByteString.copyFrom(Files.readAllBytes(path))).build();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  /** How similar each is to the first. Its own error stands in the place of one that has none. */
  private static int showEmbeddings(List<String> sources, List<EmbedResult> results) {
    int failed = 0;
    Embedding first = results.get(0).getEmbedding();
    for (int place = 0; place < sources.size(); place++) {
      EmbedResult result = results.get(place);
      if (result.hasError()) {
        failed++;
        showError(sources.get(place), result.getError());
        continue;
      }
      // Embeddings have unit length, so their dot product is the cosine.
      double cosine = 0;
      for (int n = 0; n < first.getValuesCount(); n++) {
        cosine += (double) first.getValues(n) * result.getEmbedding().getValues(n);
      }
      System.out.printf("%.3f\t%s%n", cosine, sources.get(place));
    }
    return failed;
  }

  /** The best label of each, and how many there are. */
  private static int showPredictions(List<String> pictures, List<ClassifyResult> results) {
    int failed = 0;
    for (int place = 0; place < pictures.size(); place++) {
      ClassifyResult result = results.get(place);
      if (result.hasError()) {
        failed++;
        showError(pictures.get(place), result.getError());
        continue;
      }
      String best = result.getPredictions().getPredictions(0).getLabel();
      int labels = result.getPredictions().getPredictionsCount();
      System.out.printf("%s\t%s\t%d%n", best, pictures.get(place), labels);
    }
    return failed;
  }

  private static void showError(String source, Error error) {
    System.out.printf("error\t%s\t%s: %s%n", source, error.getField(), error.getMessage());
  }

  private int run(String call, List<String> arguments) throws IOException, InterruptedException {
    GetModelResponse model = clip().getModel(GetModelRequest.getDefaultInstance());
    System.out.printf("model\t%s\t%s%n", model.getName(), model.getFingerprint());
    List<String> pictures = arguments.subList(1, arguments.size());
    return switch (call) {
      case "embed" -> showEmbeddings(arguments, embed(arguments));
      case "stream" -> showEmbeddings(arguments, stream(arguments));
      case "classify" -> showPredictions(pictures, classify(arguments.get(0), pictures));
      default -> throw new IllegalArgumentException("no such call: " + call);
    };
  }

  public static void main(String[] arguments) throws Exception {
    Client client = new Client(arguments[0]);
    int failed;
    try {
      failed = client.run(arguments[1], List.of(arguments).subList(2, arguments.length));
    } catch (StatusRuntimeException error) {
      System.err.println(error.getStatus().getCode() + ": " + error.getStatus().getDescription());
      failed = 1;
    } finally {
      client.channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
    System.exit(failed > 0 ? 1 : 0);
  }
}
