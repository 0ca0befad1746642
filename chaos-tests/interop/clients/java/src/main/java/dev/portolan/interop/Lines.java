package dev.portolan.interop;

import com.google.gson.Gson;
import io.grpc.internal.GrpcUtil;
import java.util.HashMap;
import java.util.Map;

/** JSON lines on standard output, and options from the command line. */
final class Lines {
  private static final Gson GSON = new Gson();

  static void say(Map<String, ?> line) {
    System.out.println(GSON.toJson(line));
    System.out.flush();
  }

  /** The first line: which client this is. */
  static void introduce(String client) {
    say(Map.of("client", client, "version", GrpcUtil.getGrpcBuildVersion().getImplementationVersion()));
  }

  /** {@code --name value} pairs. */
  static Map<String, String> options(String[] args) {
    Map<String, String> options = new HashMap<>();
    for (int i = 0; i + 1 < args.length; i += 2) {
      options.put(args[i].substring(2), args[i + 1]);
    }
    return options;
  }

  private Lines() {}
}
