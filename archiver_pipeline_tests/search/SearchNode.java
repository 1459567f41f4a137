import java.io.IOException;
import java.util.List;
import java.util.Map;

import org.opensearch.common.settings.Settings;
import org.opensearch.index.mapper.MapperExtrasPlugin;
import org.opensearch.index.reindex.ReindexPlugin;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/**
 * An OpenSearch node whose modules are on the class path. OpenSearch's own main class wants them in folders of their
 * own, as only its distribution has them, and a security manager, which Java has no more from 24 on.
 */
public final class SearchNode extends Node {
    private SearchNode(String home) {
        super(
            InternalSettingsPreparer.prepareEnvironment(Settings.EMPTY, Map.of("path.home", home), null, () -> "node"),
            List.of(Netty4Plugin.class, ReindexPlugin.class, MapperExtrasPlugin.class),
            true
        );
    }

    /** Runs a node on a folder that has config/opensearch.yml, until the process is ended. */
    public static void main(String[] arguments) {
        try {
            SearchNode node = new SearchNode(arguments[0]);
            Runtime.getRuntime().addShutdownHook(new Thread(() -> close(node)));
            node.start();
            // All threads of a node are daemons: without this one the process would end.
            Thread.currentThread().join();
        } catch (Throwable error) {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    private static void close(Node node) {
        try {
            node.close();
        } catch (IOException error) {
            error.printStackTrace();
        }
    }
}
