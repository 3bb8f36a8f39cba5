{{ config(materialized='incremental', unique_key='row_key', incremental_strategy='delete+insert',
          on_schema_change='append_new_columns') }}
{# The newest row with numbers of each key, else the newest row. A later reading restates past days. #}
with new_rows as (
    select * from {{ ref('stg_send_analytics') }}
    {% if is_incremental() %}
    where captured_at > (select max(captured_at) - interval '{{ var("lookback_days") }} days' from {{ this }})
    {% endif %}
),

candidates as (
    select * from new_rows
    {% if is_incremental() %}
    union all by name
    select * from {{ this }} where row_key in (select row_key from new_rows)
    {% endif %}
)

select * from candidates
qualify row_number() over (partition by row_key order by has_numbers desc, captured_at desc, batch_id desc) = 1
