package example;

import dev.zkside.v1.AcquireRequest;
import dev.zkside.v1.CampaignRequest;
import dev.zkside.v1.Change;
import dev.zkside.v1.ElectionServiceGrpc;
import dev.zkside.v1.GetRequest;
import dev.zkside.v1.Hold;
import dev.zkside.v1.HoldServiceGrpc;
import dev.zkside.v1.HoldState;
import dev.zkside.v1.HoldUpdate;
import dev.zkside.v1.LockMode;
import dev.zkside.v1.LockServiceGrpc;
import dev.zkside.v1.Node;
import dev.zkside.v1.NodeServiceGrpc;
import dev.zkside.v1.ReleaseRequest;
import dev.zkside.v1.Scope;
import dev.zkside.v1.WatchRequest;
import dev.zkside.v1.WatchResponse;
import dev.zkside.v1.WatchServiceGrpc;
import dev.zkside.v1.WatchTarget;
import io.grpc.ManagedChannel;
import io.grpc.netty.NettyChannelBuilder;
import io.netty.channel.epoll.EpollDomainSocketChannel;
import io.netty.channel.epoll.EpollEventLoopGroup;
import io.netty.channel.unix.DomainSocketAddress;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/**
 * Reads and watches a node, holds a lock and stands for election, until the node says "stop".
 *
 * <pre>PROTOS=$(zkside protos) mvn package
 * java -cp 'target/classes:target/dependency/*' example.Held unix:/run/zkside/zkside.sock my-name</pre>
 *
 * The node is /clients/config, the lock /clients/lock, the election /clients/election.
 */
public final class Held {
  private Held() {}

  /** Over a Unix socket, which takes Netty with epoll. With TCP, Grpc.newChannelBuilder does. */
  static ManagedChannel connect(String address, EpollEventLoopGroup group) {
    return NettyChannelBuilder.forAddress(new DomainSocketAddress(address.replaceFirst("^unix:", "")))
        .eventLoopGroup(group)
        .channelType(EpollDomainSocketChannel.class)
        .overrideAuthority("localhost")
        .usePlaintext()
        .build();
  }

  /**
   * Waits until it is held. Work that relies on it goes on reading: it stops at JEOPARDY, or when the lease in the
   * update has passed, and hands the fencing token to what it protects. A hold lives as long as its stream.
   */
  static Hold held(String what, Iterator<HoldUpdate> stream) {
    while (stream.hasNext()) {
      HoldUpdate update = stream.next();
      if (update.getState() == HoldState.HOLD_STATE_HELD) {
        System.out.println(what + " " + update.getHold().getFencingToken());
        return update.getHold();
      }
      if (update.getState() == HoldState.HOLD_STATE_LOST) {
        throw new IllegalStateException(what + ": lost, " + update.getReason());
      }
    }
    throw new IllegalStateException(what + ": ended");
  }

  static List<Node> nodes(WatchResponse message) {
    List<Node> nodes = new ArrayList<>(message.getSnapshot().getNodesList());
    for (Change change : message.getChanges().getChangesList()) {
      nodes.add(change.getNode());
    }
    return nodes;
  }

  public static void main(String[] arguments) {
    String name = arguments[1];
    EpollEventLoopGroup group = new EpollEventLoopGroup(1);
    ManagedChannel channel = connect(arguments[0], group);
    GetRequest get = GetRequest.newBuilder().setPath("/clients/config").build();
    Node node = NodeServiceGrpc.newBlockingStub(channel).get(get).getNode();
    System.out.println("read " + node.getData().toStringUtf8());

    AcquireRequest acquire = AcquireRequest.newBuilder()
        .setPath("/clients/lock").setMode(LockMode.LOCK_MODE_EXCLUSIVE).setOwner(name).build();
    Hold lock = held("lock", LockServiceGrpc.newBlockingStub(channel).acquire(acquire));
    CampaignRequest campaign =
        CampaignRequest.newBuilder().setPath("/clients/election").setCandidateId(name).build();
    held("leader", ElectionServiceGrpc.newBlockingStub(channel).campaign(campaign));

    WatchTarget target = WatchTarget.newBuilder()
        .setPath("/clients/config").setScope(Scope.SCOPE_NODE).setWithData(true).build();
    Iterator<WatchResponse> watch = WatchServiceGrpc.newBlockingStub(channel)
        .watch(WatchRequest.newBuilder().addTargets(target).build());
    while (watch.hasNext()) {
      for (Node seen : nodes(watch.next())) {
        System.out.println("watch " + seen.getData().toStringUtf8());
        if (seen.getData().toStringUtf8().equals("stop")) {
          ReleaseRequest release = ReleaseRequest.newBuilder().setHoldId(lock.getHoldId()).build();
          HoldServiceGrpc.newBlockingStub(channel).release(release);
          System.out.println("released");
          channel.shutdownNow();
          group.shutdownGracefully();
          return;
        }
      }
    }
    throw new IllegalStateException("the watch ended");
  }
}
