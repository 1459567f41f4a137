import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.Optional;
import java.util.stream.Stream;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.PipelineOptions;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.runtime.minicluster.MiniCluster;
import org.apache.flink.runtime.minicluster.MiniClusterConfiguration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/**
 * Copies a Kafka topic, up to the end offsets seen at the start, into Parquet by type and hour, with Flink SQL.
 *
 * <p>Arguments: bootstrap servers, topic, the folder for the Parquet, the folder for checkpoints, seconds between two
 * checkpoints. Where there is a checkpoint already, it goes on from there. The last line printed is a JSON object whose
 * {@code seconds} are those from the submission of the job until Flink says that it is finished, the last checkpoint and
 * the commit of its files included. What comes before is start-up: the JVM, a cluster in this process, the table
 * environment and the definition of both tables.
 *
 * <p>Set beside the defaults: the interval of checkpoints, objects used again between operators, larger fetches from
 * Kafka, times as 64-bit numbers instead of INT96. Heap and collector are in {@code systems.py}.
 */
public final class Archive {
    private static final int PARALLELISM = 2;

    public static void main(String[] arguments) throws Exception {
        Configuration settings = new Configuration();
        settings.set(RestOptions.BIND_PORT, "0");
        settings.set(CheckpointingOptions.CHECKPOINTING_INTERVAL, Duration.ofSeconds(Long.parseLong(arguments[4])));
        settings.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        settings.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + arguments[3]);
        settings.set(PipelineOptions.OBJECT_REUSE, true);
        newest(Path.of(arguments[3])).ifPresent(
                checkpoint -> settings.set(StateRecoveryOptions.SAVEPOINT_PATH, "file://" + checkpoint));
        MiniClusterConfiguration size = new MiniClusterConfiguration.Builder()
                .setConfiguration(settings)
                .setNumTaskManagers(1)
                .setNumSlotsPerTaskManager(PARALLELISM)
                .build();
        try (MiniCluster cluster = new MiniCluster(size)) {
            cluster.start();
            StreamExecutionEnvironment environment = StreamExecutionEnvironment.createRemoteEnvironment(
                    "localhost", cluster.getRestAddress().get().getPort(), settings);
            environment.setParallelism(PARALLELISM);
            StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
            tables.getConfig().set("table.local-time-zone", "UTC");
            tables.executeSql(topic(arguments[0], arguments[1]));
            tables.executeSql(parquet(arguments[2]));
            long began = System.currentTimeMillis();
            TableResult result = tables.executeSql(COPY);
            result.await();
            // Flink's own time of the end: the client asks for it in intervals that grow to two seconds.
            long ended = cluster.getExecutionGraph(result.getJobClient().get().getJobID())
                    .get()
                    .getStatusTimestamp(JobStatus.FINISHED);
            System.out.println("{\"seconds\": " + (ended - began) / 1000.0 + "}");
        }
    }

    /** The newest checkpoint in a folder that was written to its end. */
    private static Optional<Path> newest(Path folder) throws IOException {
        if (!Files.exists(folder)) {
            return Optional.empty();
        }
        try (Stream<Path> files = Files.find(folder, 3, (path, about) -> path.endsWith("_metadata"))) {
            return files.max(Comparator.comparing(path -> path.toFile().lastModified())).map(Path::getParent);
        }
    }

    private static String topic(String servers, String name) {
        return """
                CREATE TABLE messages (
                  `topic` STRING METADATA VIRTUAL,
                  `partition` INT METADATA VIRTUAL,
                  `offset` BIGINT METADATA VIRTUAL,
                  `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
                  `key` BYTES,
                  `value` STRING
                ) WITH (
                  'connector' = 'kafka',
                  'topic' = '%s',
                  'properties.bootstrap.servers' = '%s',
                  'properties.max.poll.records' = '10000',
                  'properties.max.partition.fetch.bytes' = '8388608',
                  'properties.receive.buffer.bytes' = '1048576',
                  'scan.startup.mode' = 'earliest-offset',
                  'scan.bounded.mode' = 'latest-offset',
                  'key.format' = 'raw',
                  'key.fields' = 'key',
                  'value.format' = 'raw',
                  'value.fields-include' = 'EXCEPT_KEY'
                )""".formatted(name, servers);
    }

    private static String parquet(String folder) {
        return """
                CREATE TABLE files (
                  `topic` STRING,
                  `partition` INT,
                  `offset` BIGINT,
                  `timestamp` TIMESTAMP_LTZ(3),
                  `key` BYTES,
                  `value` STRING,
                  `type` STRING,
                  `dt` STRING,
                  `hr` STRING
                ) PARTITIONED BY (`type`, `dt`, `hr`) WITH (
                  'connector' = 'filesystem',
                  'path' = 'file://%s',
                  'format' = 'parquet',
                  'parquet.compression' = 'ZSTD',
                  'parquet.utc-timezone' = 'true',
                  'parquet.write.int64.timestamp' = 'true',
                  'parquet.timestamp.time.unit' = 'millis'
                )""".formatted(folder);
    }

    private static final String COPY = """
            INSERT INTO files
            SELECT `topic`, `partition`, `offset`, `timestamp`, `key`, `value`, JSON_VALUE(`value`, '$.type'),
              DATE_FORMAT(`timestamp`, 'yyyy-MM-dd'), DATE_FORMAT(`timestamp`, 'HH')
            FROM messages""";
}
