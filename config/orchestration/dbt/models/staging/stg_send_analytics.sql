{# One row for each row of a part, with a key, types, and whether a counter is not 0. #}
{% set texts = ['workspace', 'campaign_id', 'send_id', 'date', 'level', 'channel', 'variation_name',
                'variation_api_id', 'reading', 'captured_at', 'verdict', 'batch_id', 'ending_at', 'since',
                'unrecognized'] %}
{% set key = texts[:8] %}
{% set rows = source('harvester', 'send_analytics') %}
{% set columns = adapter.get_columns_in_relation(rows) if execute else [] %}

select
    md5({% for name in key %}coalesce("{{ name }}", '~') {{ "|| '|' || " if not loop.last }}{% endfor %}) as row_key,
    case when false
        {% for column in columns if column.name not in texts %}or "{{ column.name }}" <> 0 {% endfor %}
        or regexp_matches(unrecognized, '":"?-?[0.]*[1-9]')
        then 1 else 0
    end as has_numbers,
    cast(captured_at as timestamp) as captured_at,
    {% for column in columns if column.name != 'captured_at' %}
    "{{ column.name }}"{{ "," if not loop.last }}
    {% endfor %}
from {{ rows }}
