package dev.zkside.interop;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;

/**
 * One of Curator's recipes, as a process for the tests. Ends with 0 when all went as it should, with 1 and a
 * stack trace otherwise.
 *
 * <pre>
 * contend RECIPE HOSTS PATH REFEREE-PORT NAME...     take turns until the referee says that it is over
 * group HOSTS PATH ID DATA                           be a member until standard input ends
 * discovery HOSTS BASE-PATH                          register and look up, as standard input says
 * participants latch|selector HOSTS PATH             print the candidates as JSON, then end
 * revoke HOSTS PATH                                  ask the lock's first contender to let go
 * </pre>
 */
public final class Main {
    private static final int SESSION_TIMEOUT_MS = 4_000;
    private static final int CONNECTION_TIMEOUT_MS = 10_000;

    private Main() {}

    public static void main(String[] arguments) {
        List<String> rest = Arrays.asList(arguments);
        try {
            run(rest.get(0), rest.subList(1, rest.size()));
        } catch (Throwable problem) {
            problem.printStackTrace();
            System.exit(1);
        }
        System.exit(0);
    }

    private static void run(String command, List<String> rest) throws Exception {
        switch (command) {
            case "contend":
                contend(rest.get(0), rest.get(1), rest.get(2), Integer.parseInt(rest.get(3)), rest.subList(4, rest.size()));
                break;
            case "group":
                try (CuratorFramework client = connect(rest.get(0))) {
                    Members.group(client, rest.get(1), rest.get(2), rest.get(3));
                }
                break;
            case "discovery":
                try (CuratorFramework client = connect(rest.get(0))) {
                    Members.discovery(client, rest.get(1));
                }
                break;
            case "participants":
                try (CuratorFramework client = connect(rest.get(1))) {
                    Members.participants(client, rest.get(0), rest.get(2));
                }
                break;
            case "revoke":
                try (CuratorFramework client = connect(rest.get(0))) {
                    Members.revoke(client, rest.get(1));
                }
                break;
            default:
                throw new IllegalArgumentException(command);
        }
    }

    /** Every name is a contender with a session, a thread and a line to the referee of its own. */
    private static void contend(String recipe, String hosts, String path, int refereePort, List<String> names)
            throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(names.size());
        List<Future<Void>> running = new ArrayList<>();
        for (String name : names) {
            Callable<Void> contender = () -> {
                try (CuratorFramework client = connect(hosts);
                        Referee referee = new Referee(refereePort, name, Contenders.isShared(recipe))) {
                    Contenders.named(recipe).contend(client, path, name, referee);
                }
                return null;
            };
            running.add(threads.submit(contender));
        }
        for (Future<Void> one : running) {
            one.get();
        }
        threads.shutdown();
    }

    private static CuratorFramework connect(String hosts) throws InterruptedException {
        CuratorFramework client = CuratorFrameworkFactory.newClient(
                hosts, SESSION_TIMEOUT_MS, CONNECTION_TIMEOUT_MS, new RetryOneTime(100));
        client.start();
        client.blockUntilConnected();
        return client;
    }
}
