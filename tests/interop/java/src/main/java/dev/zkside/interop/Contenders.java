package dev.zkside.interop;

import java.lang.reflect.Method;
import java.util.concurrent.CountDownLatch;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;

/** Curator's recipes, each as an endless "take it, tell the referee, give it back". */
final class Contenders {
    private Contenders() {}

    interface Contender {
        /** Returns after the turn at whose end the referee says that it is over. */
        void contend(CuratorFramework client, String path, String name, Referee referee) throws Exception;
    }

    static Contender named(String recipe) {
        String[] parts = recipe.split(":");
        switch (parts[0]) {
            case "mutex":
                return (client, path, name, referee) -> lock(new InterProcessMutex(client, path), referee);
            case "read":
                return (client, path, name, referee) ->
                        lock(new InterProcessReadWriteLock(client, path).readLock(), referee);
            case "write":
                return (client, path, name, referee) ->
                        lock(new InterProcessReadWriteLock(client, path).writeLock(), referee);
            case "downgrade":
                return (client, path, name, referee) -> downgrade(new InterProcessReadWriteLock(client, path), referee);
            case "semaphore":
                return (client, path, name, referee) ->
                        semaphore(new InterProcessSemaphoreV2(client, path, Integer.parseInt(parts[1])), referee);
            case "latch":
                return Contenders::latch;
            case "selector":
                return Contenders::selector;
            default:
                throw new IllegalArgumentException(recipe);
        }
    }

    static boolean isShared(String recipe) {
        return recipe.equals("read") || recipe.equals("downgrade");
    }

    /** Its turn is that of the read lock, which it got with the number of the write lock. */
    private static void downgrade(InterProcessReadWriteLock lock, Referee referee) throws Exception {
        Method node = nodeOf();
        boolean on = true;
        while (on) {
            lock.writeLock().acquire();
            lock.readLock().acquire();
            lock.writeLock().release();
            try {
                on = referee.turn((String) node.invoke(lock.readLock()));
            } finally {
                lock.readLock().release();
            }
        }
    }

    private static Method nodeOf() throws NoSuchMethodException {
        Method node = InterProcessMutex.class.getDeclaredMethod("getLockPath");
        node.setAccessible(true);
        return node;
    }

    private static void lock(InterProcessMutex lock, Referee referee) throws Exception {
        Method node = nodeOf();
        boolean on = true;
        while (on) {
            lock.acquire();
            try {
                on = referee.turn((String) node.invoke(lock));
            } finally {
                lock.release();
            }
        }
    }

    private static void semaphore(InterProcessSemaphoreV2 semaphore, Referee referee) throws Exception {
        boolean on = true;
        while (on) {
            Lease lease = semaphore.acquire();
            try {
                on = referee.turn(null);
            } finally {
                semaphore.returnLease(lease);
            }
        }
    }

    private static void latch(CuratorFramework client, String path, String name, Referee referee) throws Exception {
        boolean on = true;
        while (on) {
            try (LeaderLatch latch = new LeaderLatch(client, path, name)) {
                latch.start();
                latch.await();
                on = referee.turn(latch.getOurPath());
            }
        }
    }

    private static void selector(CuratorFramework client, String path, String name, Referee referee) throws Exception {
        CountDownLatch over = new CountDownLatch(1);
        Exception[] problem = new Exception[1];
        LeaderSelectorListenerAdapter listener = new LeaderSelectorListenerAdapter() {
            @Override
            public void takeLeadership(CuratorFramework ignored) {
                try {
                    if (over.getCount() == 0 || referee.turn(null)) {
                        return;
                    }
                } catch (Exception happened) {
                    problem[0] = happened;
                }
                over.countDown();
            }
        };
        try (LeaderSelector selector = new LeaderSelector(client, path, listener)) {
            selector.setId(name);
            selector.autoRequeue();
            selector.start();
            over.await();
        }
        if (problem[0] != null) {
            throw problem[0];
        }
    }
}
