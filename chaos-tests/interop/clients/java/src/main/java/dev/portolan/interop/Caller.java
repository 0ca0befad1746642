package dev.portolan.interop;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.MoreExecutors;
import com.google.protobuf.Empty;
import com.google.protobuf.StringValue;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Calls Echo over xDS at a steady rate, and prints what became of the calls as JSON lines.
 *
 * <p>The first line says which client this is. Each later line counts what ended since the one before, by backend or by error.
 */
public final class Caller implements FutureCallback<StringValue> {
  private static final long PRINT_EVERY_MS = 100;

  private Map<String, Integer> answered = new TreeMap<>();
  private Map<String, Integer> failed = new TreeMap<>();

  @Override
  public synchronized void onSuccess(StringValue backend) {
    answered.merge(backend.getValue(), 1, Integer::sum);
  }

  @Override
  public synchronized void onFailure(Throwable cause) {
    Status status = Status.fromThrowable(cause);
    failed.merge(status.getCode() + ": " + status.getDescription(), 1, Integer::sum);
  }

  private synchronized void sayCounts() {
    Lines.say(Map.of("answered", answered, "failed", failed));
    answered = new TreeMap<>();
    failed = new TreeMap<>();
  }

  public static void main(String[] args) {
    Map<String, String> options = Lines.options(args);
    double rate = Double.parseDouble(options.get("rate"));
    long timeoutMs = Math.round(Double.parseDouble(options.get("timeout")) * 1000);
    Lines.introduce("grpc-java");

    ManagedChannel channel =
        Grpc.newChannelBuilder(options.get("target"), InsecureChannelCredentials.create()).build();
    Caller caller = new Caller();
    // Of every second call: a route tells them by it.
    Metadata lane = new Metadata();
    lane.put(Metadata.Key.of("lane", Metadata.ASCII_STRING_MARSHALLER), "blue");
    Channel blue = ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(lane));
    AtomicLong made = new AtomicLong();
    Runnable call =
        () -> {
          Channel over = made.getAndIncrement() % 2 == 0 ? channel : blue;
          CallOptions limits = CallOptions.DEFAULT.withDeadlineAfter(timeoutMs, TimeUnit.MILLISECONDS);
          Futures.addCallback(
              ClientCalls.futureUnaryCall(over.newCall(Echo.CALL, limits), Empty.getDefaultInstance()),
              caller,
              MoreExecutors.directExecutor());
        };
    ScheduledExecutorService timers = Executors.newScheduledThreadPool(2);
    timers.scheduleAtFixedRate(call, 0, Math.round(1e9 / rate), TimeUnit.NANOSECONDS);
    timers.scheduleAtFixedRate(caller::sayCounts, PRINT_EVERY_MS, PRINT_EVERY_MS, TimeUnit.MILLISECONDS);
  }
}
