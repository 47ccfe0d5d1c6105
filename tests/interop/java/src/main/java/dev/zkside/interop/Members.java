package dev.zkside.interop;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.Revoker;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.x.discovery.ServiceCache;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.UriSpec;

/** Presence by Curator. Each reads commands from standard input and answers each with one line of JSON. */
final class Members {
    private static final ObjectMapper JSON = new ObjectMapper();

    private Members() {}

    /** Commands: "list" (the members that it knows), "data TEXT" (set its own). */
    static void group(CuratorFramework client, String path, String id, String data) throws Exception {
        try (GroupMember member = new GroupMember(client, path, id, data.getBytes(StandardCharsets.UTF_8))) {
            member.start();
            BufferedReader commands = commands();
            for (String line = commands.readLine(); line != null; line = commands.readLine()) {
                if (line.startsWith("data ")) {
                    member.setThisData(line.substring(5).getBytes(StandardCharsets.UTF_8));
                }
                Map<String, String> members = new TreeMap<>();
                for (Map.Entry<String, byte[]> entry : member.getCurrentMembers().entrySet()) {
                    members.put(entry.getKey(), new String(entry.getValue(), StandardCharsets.UTF_8));
                }
                answer(members);
            }
        }
    }

    /**
     * Commands: "register NAME ID ADDRESS PORT PAYLOAD", "unregister ID", "query NAME" (asks the server),
     * "watch NAME" (answers from a ServiceCache, which is kept).
     */
    static void discovery(CuratorFramework client, String basePath) throws Exception {
        Map<String, ServiceInstance<String>> own = new HashMap<>();
        Map<String, ServiceCache<String>> caches = new HashMap<>();
        try (ServiceDiscovery<String> discovery = ServiceDiscoveryBuilder.builder(String.class)
                .client(client)
                .basePath(basePath)
                .build()) {
            discovery.start();
            BufferedReader commands = commands();
            for (String line = commands.readLine(); line != null; line = commands.readLine()) {
                String[] words = line.split(" ");
                switch (words[0]) {
                    case "register":
                        ServiceInstance<String> instance = ServiceInstance.<String>builder()
                                .name(words[1])
                                .id(words[2])
                                .address(words[3])
                                .port(Integer.parseInt(words[4]))
                                .payload(words[5])
                                .uriSpec(new UriSpec("{scheme}://{address}:{port}"))
                                .build();
                        discovery.registerService(instance);
                        own.put(words[2], instance);
                        answer(true);
                        break;
                    case "unregister":
                        discovery.unregisterService(own.remove(words[1]));
                        answer(true);
                        break;
                    case "query":
                        answer(described(discovery.queryForInstances(words[1])));
                        break;
                    case "watch":
                        if (!caches.containsKey(words[1])) {
                            caches.put(words[1], discovery.serviceCacheBuilder().name(words[1]).build());
                            caches.get(words[1]).start();
                        }
                        answer(described(caches.get(words[1]).getInstances()));
                        break;
                    default:
                        throw new IllegalArgumentException(line);
                }
            }
            for (ServiceCache<String> cache : caches.values()) {
                cache.close();
            }
        }
    }

    /** Answers with {"leader": its id or null, "all": every id, sorted}. */
    static void participants(CuratorFramework client, String recipe, String path) throws Exception {
        Collection<Participant> all;
        if (recipe.equals("latch")) {
            all = new LeaderLatch(client, path).getParticipants();
        } else {
            all = new LeaderSelector(client, path, new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework ignored) {
                    throw new IllegalStateException("it was never started");
                }
            }).getParticipants();
        }
        String leader = null;
        List<String> ids = new ArrayList<>();
        for (Participant participant : all) {
            ids.add(participant.getId());
            leader = participant.isLeader() ? participant.getId() : leader;
        }
        Collections.sort(ids);
        Map<String, Object> told = new HashMap<>();
        told.put("leader", leader);
        told.put("all", ids);
        answer(told);
    }

    /** Asks the first contender of a mutex to let go, and does not wait until it does. */
    static void revoke(CuratorFramework client, String path) throws Exception {
        Collection<String> nodes = new InterProcessMutex(client, path).getParticipantNodes();
        Revoker.attemptRevoke(client, nodes.iterator().next());
    }

    private static List<Map<String, Object>> described(Collection<ServiceInstance<String>> instances) {
        List<Map<String, Object>> all = new ArrayList<>();
        for (ServiceInstance<String> instance : instances) {
            Map<String, Object> one = new HashMap<>();
            one.put("name", instance.getName());
            one.put("id", instance.getId());
            one.put("address", instance.getAddress());
            one.put("port", instance.getPort());
            one.put("sslPort", instance.getSslPort());
            one.put("payload", instance.getPayload());
            one.put("registered", instance.getRegistrationTimeUTC());
            one.put("type", instance.getServiceType().toString());
            one.put("enabled", instance.isEnabled());
            one.put("uri", instance.getUriSpec() == null ? null : instance.buildUriSpec(Map.of("scheme", "http")));
            all.add(one);
        }
        return all;
    }

    private static BufferedReader commands() {
        return new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    }

    private static void answer(Object value) throws IOException {
        System.out.println(JSON.writeValueAsString(value));
        System.out.flush();
    }
}
