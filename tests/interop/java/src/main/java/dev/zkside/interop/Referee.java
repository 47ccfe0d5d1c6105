package dev.zkside.interop;

import java.io.BufferedReader;
import java.io.Closeable;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;

/** One contender's line to the referee, who is outside of every library (tests/interop/referee.py). */
final class Referee implements Closeable {
    private final Socket socket;
    private final BufferedReader answers;

    /** Returns when all contenders have come. */
    Referee(int port, String name, boolean shared) throws IOException {
        socket = new Socket(InetAddress.getLoopbackAddress(), port);
        socket.setTcpNoDelay(true);
        answers = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII));
        ask("join " + name + (shared ? " shared" : " exclusive"));
    }

    /**
     * Call it only while holding: it enters and leaves. Whether to take another turn.
     *
     * @param node the contender's znode, or null if the recipe does not tell
     */
    boolean turn(String node) throws IOException {
        ask("enter " + (node == null ? "-" : node.substring(node.length() - 10)));
        return ask("leave").equals("on");
    }

    private String ask(String line) throws IOException {
        socket.getOutputStream().write((line + "\n").getBytes(StandardCharsets.US_ASCII));
        String answer = answers.readLine();
        if (answer == null) {
            throw new EOFException("the referee is gone");
        }
        return answer;
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
