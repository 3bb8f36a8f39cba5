CREATE FUNCTION public.harvester_outcome_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO outcome_count SELECT k0, sum(change) FROM (SELECT outcome, -1 FROM old_rows) AS changed (k0, change) GROUP BY 1 HAVING sum(change) <> 0; RETURN NULL; END $$;
CREATE FUNCTION public.harvester_outcome_insert() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO outcome_count SELECT k0, sum(change) FROM (SELECT outcome, 1 FROM new_rows) AS changed (k0, change) GROUP BY 1 HAVING sum(change) <> 0; RETURN NULL; END $$;
CREATE FUNCTION public.harvester_pair_delete() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO pair_count SELECT k0, k1, k2, k3, k4, k5, k6, sum(change) FROM (SELECT workspace, CASE WHEN state = 'waiting' AND deferrals > 0 THEN 'deferred' ELSE state END, CASE state WHEN 'settled' THEN coalesce(outcome, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(verdict, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(reason, '') ELSE '' END, CAST(captures > 0 AS INTEGER), CASE state WHEN 'settled' THEN 0 ELSE CAST(floor((expires_at - 86400.0) / 86400.0) AS INTEGER) END, -1 FROM old_rows UNION ALL SELECT workspace, 'accepted', '', '', '', 0, 0, -1 FROM old_rows) AS changed (k0, k1, k2, k3, k4, k5, k6, change) GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(change) <> 0; RETURN NULL; END $$;
CREATE FUNCTION public.harvester_pair_insert() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO pair_count SELECT k0, k1, k2, k3, k4, k5, k6, sum(change) FROM (SELECT workspace, CASE WHEN state = 'waiting' AND deferrals > 0 THEN 'deferred' ELSE state END, CASE state WHEN 'settled' THEN coalesce(outcome, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(verdict, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(reason, '') ELSE '' END, CAST(captures > 0 AS INTEGER), CASE state WHEN 'settled' THEN 0 ELSE CAST(floor((expires_at - 86400.0) / 86400.0) AS INTEGER) END, 1 FROM new_rows UNION ALL SELECT workspace, 'accepted', '', '', '', 0, 0, 1 FROM new_rows) AS changed (k0, k1, k2, k3, k4, k5, k6, change) GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(change) <> 0; RETURN NULL; END $$;
CREATE FUNCTION public.harvester_pair_update() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO pair_count SELECT k0, k1, k2, k3, k4, k5, k6, sum(change) FROM (SELECT workspace, CASE WHEN state = 'waiting' AND deferrals > 0 THEN 'deferred' ELSE state END, CASE state WHEN 'settled' THEN coalesce(outcome, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(verdict, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(reason, '') ELSE '' END, CAST(captures > 0 AS INTEGER), CASE state WHEN 'settled' THEN 0 ELSE CAST(floor((expires_at - 86400.0) / 86400.0) AS INTEGER) END, -1 FROM old_rows UNION ALL SELECT workspace, CASE WHEN state = 'waiting' AND deferrals > 0 THEN 'deferred' ELSE state END, CASE state WHEN 'settled' THEN coalesce(outcome, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(verdict, '') ELSE '' END, CASE state WHEN 'settled' THEN coalesce(reason, '') ELSE '' END, CAST(captures > 0 AS INTEGER), CASE state WHEN 'settled' THEN 0 ELSE CAST(floor((expires_at - 86400.0) / 86400.0) AS INTEGER) END, 1 FROM new_rows) AS changed (k0, k1, k2, k3, k4, k5, k6, change) GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING sum(change) <> 0; RETURN NULL; END $$;
CREATE TABLE public.about (
    ledger_id character varying NOT NULL,
    schema_version integer NOT NULL
);
CREATE TABLE public.batch (
    id character varying NOT NULL,
    epoch integer NOT NULL,
    state character varying NOT NULL,
    opened_at double precision NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE public.clock_difference (
    measured_at double precision NOT NULL,
    seconds double precision NOT NULL
);
CREATE TABLE public.dataset (
    place character varying NOT NULL,
    dataset_id character varying NOT NULL
);
CREATE TABLE public.outcome (
    id bigint NOT NULL,
    pair_id bigint NOT NULL,
    reading character varying NOT NULL,
    outcome character varying NOT NULL,
    verdict character varying,
    reason character varying,
    detail character varying,
    ended_at double precision NOT NULL,
    batch_id character varying
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE public.outcome_count (
    outcome character varying NOT NULL,
    readings integer NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
CREATE SEQUENCE public.outcome_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.outcome_id_seq OWNED BY public.outcome.id;
CREATE TABLE public.owner (
    epoch integer NOT NULL,
    id character varying NOT NULL,
    alive_until double precision NOT NULL,
    version character varying NOT NULL,
    serves integer DEFAULT 0 NOT NULL
);
CREATE SEQUENCE public.owner_epoch_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.owner_epoch_seq OWNED BY public.owner.epoch;
CREATE TABLE public.pace (
    workspace character varying NOT NULL COLLATE pg_catalog."C",
    calls_per_second double precision NOT NULL
);
CREATE TABLE public.pair (
    id bigint NOT NULL,
    workspace character varying NOT NULL COLLATE pg_catalog."C",
    campaign_id character varying NOT NULL COLLATE pg_catalog."C",
    send_id character varying NOT NULL COLLATE pg_catalog."C",
    sent_at double precision,
    first_seen_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    reading character varying NOT NULL,
    state character varying NOT NULL,
    due_at double precision NOT NULL,
    deferrals integer NOT NULL,
    ending_at double precision,
    epoch integer,
    outcome character varying,
    verdict character varying,
    reason character varying,
    round integer DEFAULT 0 NOT NULL,
    captures integer DEFAULT 0 NOT NULL,
    yields integer DEFAULT 0 NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE public.pair_count (
    workspace character varying NOT NULL COLLATE pg_catalog."C",
    state character varying NOT NULL,
    outcome character varying DEFAULT ''::character varying NOT NULL,
    verdict character varying DEFAULT ''::character varying NOT NULL,
    reason character varying DEFAULT ''::character varying NOT NULL,
    captured integer DEFAULT 0 NOT NULL,
    day integer DEFAULT 0 NOT NULL,
    pairs integer NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
CREATE SEQUENCE public.pair_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.pair_id_seq OWNED BY public.pair.id;
CREATE TABLE public.part (
    batch_id character varying NOT NULL,
    dataset character varying NOT NULL,
    destination character varying NOT NULL,
    name character varying NOT NULL,
    sha256 character varying NOT NULL,
    size_bytes bigint NOT NULL,
    row_count integer NOT NULL,
    data bytea,
    stored_order bigint,
    stored_at double precision
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE public.pruned_part (
    destination character varying NOT NULL,
    parts integer NOT NULL,
    stored_order bigint NOT NULL,
    stored_at double precision NOT NULL
);
CREATE TABLE public.reading_plan (
    workspace character varying NOT NULL COLLATE pg_catalog."C",
    ages_days character varying NOT NULL
);
CREATE TABLE public.service (
    workspace character varying NOT NULL,
    served_until double precision NOT NULL
);
CREATE TABLE public.workspace (
    name character varying NOT NULL COLLATE pg_catalog."C",
    halted_at double precision NOT NULL,
    halted_because character varying NOT NULL
);
ALTER TABLE ONLY public.outcome ALTER COLUMN id SET DEFAULT nextval('public.outcome_id_seq'::regclass);
ALTER TABLE ONLY public.owner ALTER COLUMN epoch SET DEFAULT nextval('public.owner_epoch_seq'::regclass);
ALTER TABLE ONLY public.pair ALTER COLUMN id SET DEFAULT nextval('public.pair_id_seq'::regclass);
INSERT INTO public.about VALUES ('d8ade132f02bd63cc7f216ef7f4ce8f9', 8);
INSERT INTO public.batch VALUES ('20260101T000000000000Z-0aed450a', 0, 'stored', 1767225600);
INSERT INTO public.batch VALUES ('20260101T000000000000Z-58206b14', 0, 'sealed', 1767225600);
INSERT INTO public.batch VALUES ('20260101T000000000000Z-a3ab489b', 0, 'stored', 1767225600);
INSERT INTO public.outcome VALUES (1, 1, 'once', 'rejected', NULL, 'status_400', 'no', 1767225600, '20260101T000000000000Z-a3ab489b');
INSERT INTO public.outcome VALUES (2, 2, 'once', 'captured', 'activity', NULL, NULL, 1767225600, '20260101T000000000000Z-58206b14');
INSERT INTO public.outcome VALUES (3, 4, 'd1', 'captured', 'activity', NULL, NULL, 1767225600, '20260101T000000000000Z-0aed450a');
INSERT INTO public.outcome_count VALUES ('captured', 2);
INSERT INTO public.outcome_count VALUES ('rejected', 1);
INSERT INTO public.pair VALUES (1, 'eu', 'c', 's2', 1767009600, 1767225600, 1768305600, 'once', 'settled', 1767225600, 0, NULL, NULL, 'rejected', NULL, 'status_400', 0, 0, 0);
INSERT INTO public.pair VALUES (2, 'eu', 'c', 's3', 1766966400, 1767225600, 1768262400, 'once', 'settled', 1767225600, 0, NULL, NULL, 'captured', 'activity', NULL, 0, 1, 0);
INSERT INTO public.pair VALUES (3, 'eu', 'c', 's0', NULL, 1767225600, 1768521600, 'd0', 'waiting', 1767225600, 0, 1767225600, NULL, NULL, NULL, NULL, 0, 0, 0);
INSERT INTO public.pair VALUES (4, 'eu', 'c', 's1', 1767139200, 1767225600, 1768435200, 'd2', 'waiting', 1767313864.8, 0, NULL, NULL, NULL, 'activity', NULL, 0, 1, 1);
INSERT INTO public.pair_count VALUES ('eu', 'settled', 'rejected', '', 'status_400', 0, 0, 1);
INSERT INTO public.pair_count VALUES ('eu', 'settled', 'captured', 'activity', '', 1, 0, 1);
INSERT INTO public.pair_count VALUES ('eu', 'waiting', '', '', '', 1, 20467, 1);
INSERT INTO public.pair_count VALUES ('eu', 'waiting', '', '', '', 0, 20468, 1);
INSERT INTO public.pair_count VALUES ('eu', 'accepted', '', '', '', 0, 0, 4);
INSERT INTO public.part VALUES ('20260101T000000000000Z-58206b14', 'send_analytics', 'd', '20260101T000000000000Z-58206b14.ndjson', 'digest', 4, 1, '\x726f7773', NULL, NULL);
INSERT INTO public.reading_plan VALUES ('eu', '[1.0,2.0,13.0]');
SELECT pg_catalog.setval('public.outcome_id_seq', 3, true);
SELECT pg_catalog.setval('public.owner_epoch_seq', 1, false);
SELECT pg_catalog.setval('public.pair_id_seq', 4, true);
ALTER TABLE ONLY public.about
    ADD CONSTRAINT about_pkey PRIMARY KEY (ledger_id);
ALTER TABLE ONLY public.batch
    ADD CONSTRAINT batch_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.clock_difference
    ADD CONSTRAINT clock_difference_pkey PRIMARY KEY (measured_at);
ALTER TABLE ONLY public.dataset
    ADD CONSTRAINT dataset_pkey PRIMARY KEY (place);
ALTER TABLE ONLY public.outcome
    ADD CONSTRAINT outcome_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.owner
    ADD CONSTRAINT owner_id_key UNIQUE (id);
ALTER TABLE ONLY public.owner
    ADD CONSTRAINT owner_pkey PRIMARY KEY (epoch);
ALTER TABLE ONLY public.pace
    ADD CONSTRAINT pace_pkey PRIMARY KEY (workspace);
ALTER TABLE ONLY public.pair
    ADD CONSTRAINT pair_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.pair
    ADD CONSTRAINT pair_workspace_campaign_id_send_id_key UNIQUE (workspace, campaign_id, send_id);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT part_pkey PRIMARY KEY (batch_id, dataset, destination);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT part_stored_order_key UNIQUE (stored_order);
ALTER TABLE ONLY public.pruned_part
    ADD CONSTRAINT pruned_part_pkey PRIMARY KEY (destination);
ALTER TABLE ONLY public.reading_plan
    ADD CONSTRAINT reading_plan_pkey PRIMARY KEY (workspace);
ALTER TABLE ONLY public.service
    ADD CONSTRAINT service_pkey PRIMARY KEY (workspace);
ALTER TABLE ONLY public.workspace
    ADD CONSTRAINT workspace_pkey PRIMARY KEY (name);
CREATE INDEX batch_stored ON public.batch USING btree (opened_at) WHERE ((state)::text = 'stored'::text);
CREATE INDEX batch_unstored ON public.batch USING btree (state, epoch) WHERE ((state)::text <> 'stored'::text);
CREATE INDEX outcome_ended ON public.outcome USING btree (ended_at);
CREATE INDEX outcome_pair ON public.outcome USING btree (pair_id);
CREATE INDEX outcome_rejected ON public.outcome USING btree (id) WHERE ((outcome)::text = 'rejected'::text);
CREATE INDEX pair_deferred ON public.pair USING btree (workspace, due_at) WHERE (((state)::text = 'waiting'::text) AND (deferrals > 0));
CREATE INDEX pair_expired ON public.pair USING btree (workspace, expires_at) WHERE ((outcome)::text = 'expired'::text);
CREATE INDEX pair_failed ON public.pair USING btree (outcome, reason, id) WHERE (((outcome)::text = 'rejected'::text) OR ((outcome)::text = 'expired'::text));
CREATE INDEX pair_leased ON public.pair USING btree (epoch, workspace) WHERE ((state)::text = 'leased'::text);
CREATE INDEX pair_next ON public.pair USING btree (workspace, yields, expires_at, id) WHERE ((state)::text = 'due'::text);
CREATE INDEX pair_open ON public.pair USING btree (workspace, expires_at, state) WHERE ((state)::text <> 'settled'::text);
CREATE INDEX pair_send ON public.pair USING btree (send_id, workspace, campaign_id);
CREATE INDEX pair_settled ON public.pair USING btree (expires_at) WHERE ((state)::text = 'settled'::text);
CREATE INDEX pair_waiting ON public.pair USING btree (workspace, due_at, captures) WHERE ((state)::text = 'waiting'::text);
CREATE TRIGGER harvester_outcome_delete AFTER DELETE ON public.outcome REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.harvester_outcome_delete();
CREATE TRIGGER harvester_outcome_insert AFTER INSERT ON public.outcome REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.harvester_outcome_insert();
CREATE TRIGGER harvester_pair_delete AFTER DELETE ON public.pair REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION public.harvester_pair_delete();
CREATE TRIGGER harvester_pair_insert AFTER INSERT ON public.pair REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.harvester_pair_insert();
CREATE TRIGGER harvester_pair_update AFTER UPDATE ON public.pair REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION public.harvester_pair_update();
ALTER TABLE ONLY public.outcome
    ADD CONSTRAINT outcome_pair_id_fkey FOREIGN KEY (pair_id) REFERENCES public.pair(id);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT part_batch_id_fkey FOREIGN KEY (batch_id) REFERENCES public.batch(id);
