package dev.zkside.safety;

import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.state.ConnectionStateErrorPolicy;
import org.apache.curator.framework.state.SessionConnectionStateErrorPolicy;
import org.apache.curator.framework.state.StandardConnectionStateErrorPolicy;
import org.apache.curator.retry.RetryForever;

/**
 * Curator's LeaderLatch as a candidate: {@code Candidates HOSTS PATH SESSION-TIMEOUT-MS}, until standard input ends.
 *
 * <p>One latch for each of Curator's error policies, below PATH. A line for every change of what a program with that
 * latch believes: {@code RULE true|false NANOSECONDS-OF-CLOCK_MONOTONIC}.
 */
public final class Candidates {
    private Candidates() {}

    public static void main(String[] arguments) throws Exception {
        String hosts = arguments[0];
        String path = arguments[1];
        int sessionTimeoutMs = Integer.parseInt(arguments[2]);
        stand(hosts, path, sessionTimeoutMs, "curator-standard", new StandardConnectionStateErrorPolicy());
        stand(hosts, path, sessionTimeoutMs, "curator-session", new SessionConnectionStateErrorPolicy());
        while (System.in.read() >= 0) {
            // Nobody has anything to say here but that it is over.
        }
        System.exit(0);
    }

    private static void stand(
            String hosts, String path, int sessionTimeoutMs, String rule, ConnectionStateErrorPolicy policy)
            throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder()
                .connectString(hosts)
                .sessionTimeoutMs(sessionTimeoutMs)
                .connectionTimeoutMs(sessionTimeoutMs)
                .retryPolicy(new RetryForever(200))
                .connectionStateErrorPolicy(policy)
                .build();
        client.start();
        client.blockUntilConnected();
        LeaderLatch latch = new LeaderLatch(client, path + "/" + rule);
        // hasLeadership() is asked besides: it turns false a little before the listeners are told.
        latch.addListener(new LeaderLatchListener() {
            @Override
            public void isLeader() {
                say(rule, true);
                new Thread(() -> watch(rule, latch)).start();
            }

            @Override
            public void notLeader() {
                say(rule, false);
            }
        });
        latch.start();
    }

    private static void watch(String rule, LeaderLatch latch) {
        try {
            while (latch.hasLeadership()) {
                Thread.sleep(1);
            }
            say(rule, false);
        } catch (InterruptedException end) {
            Thread.currentThread().interrupt();
        }
    }

    private static synchronized void say(String rule, boolean believes) {
        System.out.println(rule + " " + believes + " " + System.nanoTime());
    }
}
