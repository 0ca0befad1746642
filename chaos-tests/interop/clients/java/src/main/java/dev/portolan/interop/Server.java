package dev.portolan.interop;

import com.google.protobuf.StringValue;
import io.grpc.InsecureServerCredentials;
import io.grpc.ServerServiceDefinition;
import io.grpc.stub.ServerCalls;
import io.grpc.xds.XdsServerBuilder;
import java.util.Map;

/**
 * Offers Echo as an xDS server: it serves once its Listener has come. Prints JSON lines: which server this is, and then each
 * change of its serving mode.
 */
public final class Server {
  public static void main(String[] args) throws Exception {
    Map<String, String> options = Lines.options(args);
    StringValue name = StringValue.of(options.get("name"));
    int port = Integer.parseInt(options.get("port"));
    Lines.introduce("grpc-java-server");

    ServerServiceDefinition echo =
        ServerServiceDefinition.builder(Echo.SERVICE)
            .addMethod(
                Echo.CALL,
                ServerCalls.asyncUnaryCall(
                    (request, replies) -> {
                      replies.onNext(name);
                      replies.onCompleted();
                    }))
            .build();
    XdsServerBuilder.XdsServingStatusListener modes =
        new XdsServerBuilder.XdsServingStatusListener() {
          @Override
          public void onServing() {
            Lines.say(Map.of("serving", true));
          }

          @Override
          public void onNotServing(Throwable cause) {
            Lines.say(Map.of("serving", false));
          }
        };
    XdsServerBuilder.forPort(port, InsecureServerCredentials.create())
        .xdsServingStatusListener(modes)
        .addService(echo)
        .build()
        .start()
        .awaitTermination();
  }
}
