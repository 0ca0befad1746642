package dev.portolan.interop;

import com.google.protobuf.Empty;
import com.google.protobuf.StringValue;
import io.grpc.MethodDescriptor;
import io.grpc.protobuf.ProtoUtils;

/** The test service. CallRequest is empty, and CallReply's first field is a string: as in these well-known types. */
final class Echo {
  static final String SERVICE = "portolan.chaos.v1.Echo";

  static final MethodDescriptor<Empty, StringValue> CALL =
      MethodDescriptor.<Empty, StringValue>newBuilder()
          .setType(MethodDescriptor.MethodType.UNARY)
          .setFullMethodName(MethodDescriptor.generateFullMethodName(SERVICE, "Call"))
          .setRequestMarshaller(ProtoUtils.marshaller(Empty.getDefaultInstance()))
          .setResponseMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
          .build();

  private Echo() {}
}
