SET VARIABLE parts = 'harvest/send_analytics/*/*.ndjson*';

-- These members of a row are text, whatever they look like. All others are counters, and each becomes a column.
SET VARIABLE texts = '{
    "workspace": "VARCHAR", "campaign_id": "VARCHAR", "send_id": "VARCHAR", "date": "VARCHAR", "level": "VARCHAR",
    "channel": "VARCHAR", "variation_name": "VARCHAR", "variation_api_id": "VARCHAR", "reading": "VARCHAR",
    "captured_at": "VARCHAR", "verdict": "VARCHAR", "batch_id": "VARCHAR", "ending_at": "VARCHAR", "since": "VARCHAR"
}';
SET VARIABLE no_texts = replace(getvariable('texts'), '"VARCHAR"', 'null');
SET VARIABLE columns = (
    SELECT json_merge_patch(getvariable('texts'), json_merge_patch(json_group_structure(json), getvariable('no_texts')))
    FROM read_ndjson_objects(getvariable('parts'))
);

-- One row for each pair, date, level, channel and variation: the newest with a counter other than 0, else the newest.
CREATE OR REPLACE TABLE latest AS
SELECT * EXCLUDE (_counters)
FROM (
    SELECT
        unnest(json_transform(json, getvariable('columns'))),
        json_merge_patch(json, getvariable('no_texts')) AS _counters
    FROM read_ndjson_objects(getvariable('parts'))
)
QUALIFY row_number() OVER (
    PARTITION BY workspace, campaign_id, send_id, date, level, channel, variation_name, variation_api_id
    ORDER BY regexp_matches(_counters, '":\\?"?-?[0.]*[1-9]') DESC, captured_at DESC, batch_id DESC
) = 1;

-- Each reading is a snapshot: sum over this table, never over readings.
SELECT channel, count(DISTINCT (workspace, campaign_id, send_id)) AS pairs, sum(sent) AS sent
FROM latest WHERE level = 'variation' GROUP BY channel ORDER BY sent DESC;
