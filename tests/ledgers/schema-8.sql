BEGIN TRANSACTION;
CREATE TABLE about (
	ledger_id VARCHAR NOT NULL, 
	schema_version INTEGER NOT NULL, 
	PRIMARY KEY (ledger_id)
);
INSERT INTO "about" VALUES('d8ade132f02bd63cc7f216ef7f4ce8f9',8);
CREATE TABLE batch (
	id VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	opened_at FLOAT NOT NULL, epoch INTEGER NOT NULL DEFAULT 0, 
	PRIMARY KEY (id)
);
INSERT INTO "batch" VALUES('20260101T000000000000Z-a3ab489b','stored',1767225600.0,0);
INSERT INTO "batch" VALUES('20260101T000000000000Z-58206b14','sealed',1767225600.0,0);
INSERT INTO "batch" VALUES('20260101T000000000000Z-0aed450a','stored',1767225600.0,0);
CREATE TABLE clock_difference (
	measured_at FLOAT NOT NULL, 
	seconds FLOAT NOT NULL, 
	PRIMARY KEY (measured_at)
);
CREATE TABLE dataset (
	place VARCHAR NOT NULL, 
	dataset_id VARCHAR NOT NULL, 
	PRIMARY KEY (place)
);
CREATE TABLE outcome (
	id INTEGER NOT NULL, 
	pair_id INTEGER NOT NULL, 
	reading VARCHAR NOT NULL, 
	outcome VARCHAR NOT NULL, 
	verdict VARCHAR, 
	reason VARCHAR, 
	detail VARCHAR, 
	ended_at FLOAT NOT NULL, 
	batch_id VARCHAR, 
	PRIMARY KEY (id), 
	FOREIGN KEY(pair_id) REFERENCES pair (id)
);
INSERT INTO "outcome" VALUES(1,1,'once','rejected',NULL,'status_400','no',1767225600.0,'20260101T000000000000Z-a3ab489b');
INSERT INTO "outcome" VALUES(2,2,'once','captured','activity',NULL,NULL,1767225600.0,'20260101T000000000000Z-58206b14');
INSERT INTO "outcome" VALUES(3,4,'d1','captured','activity',NULL,NULL,1767225600.0,'20260101T000000000000Z-0aed450a');
CREATE TABLE outcome_count (
	outcome VARCHAR NOT NULL, 
	readings INTEGER NOT NULL, 
	PRIMARY KEY (outcome)
)
 WITHOUT ROWID

;
INSERT INTO "outcome_count" VALUES('captured',2);
INSERT INTO "outcome_count" VALUES('rejected',1);
CREATE TABLE owner (
	epoch INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR NOT NULL, 
	alive_until FLOAT NOT NULL, 
	version VARCHAR NOT NULL, serves INTEGER NOT NULL DEFAULT 0, 
	UNIQUE (id)
);
CREATE TABLE pace (
	workspace VARCHAR NOT NULL, 
	calls_per_second FLOAT NOT NULL, 
	PRIMARY KEY (workspace)
);
CREATE TABLE pair (
	id INTEGER NOT NULL, 
	workspace VARCHAR NOT NULL, 
	campaign_id VARCHAR NOT NULL, 
	send_id VARCHAR NOT NULL, 
	sent_at FLOAT, 
	first_seen_at FLOAT NOT NULL, 
	expires_at FLOAT NOT NULL, 
	reading VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	due_at FLOAT NOT NULL, 
	deferrals INTEGER NOT NULL, 
	ending_at FLOAT, 
	outcome VARCHAR, 
	verdict VARCHAR, 
	reason VARCHAR, 
	round INTEGER DEFAULT '0' NOT NULL, 
	captures INTEGER DEFAULT '0' NOT NULL, 
	yields INTEGER DEFAULT '0' NOT NULL, epoch INTEGER, 
	PRIMARY KEY (id), 
	UNIQUE (workspace, campaign_id, send_id)
);
INSERT INTO "pair" VALUES(1,'eu','c','s2',1767009600.0,1767225600.0,1768305600.0,'once','settled',1767225600.0,0,NULL,'rejected',NULL,'status_400',0,0,0,NULL);
INSERT INTO "pair" VALUES(2,'eu','c','s3',1766966400.0,1767225600.0,1768262400.0,'once','settled',1767225600.0,0,NULL,'captured','activity',NULL,0,1,0,NULL);
INSERT INTO "pair" VALUES(3,'eu','c','s0',NULL,1767225600.0,1768521600.0,'d0','waiting',1767225600.0,0,1767225600.0,NULL,NULL,NULL,0,0,0,NULL);
INSERT INTO "pair" VALUES(4,'eu','c','s1',1767139200.0,1767225600.0,1768435200.0,'d2','waiting',1767313864.8,0,NULL,NULL,'activity',NULL,0,1,1,NULL);
CREATE TABLE pair_count (
	workspace VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	outcome VARCHAR DEFAULT '' NOT NULL, 
	verdict VARCHAR DEFAULT '' NOT NULL, 
	reason VARCHAR DEFAULT '' NOT NULL, 
	captured INTEGER DEFAULT '0' NOT NULL, 
	day INTEGER DEFAULT '0' NOT NULL, 
	pairs INTEGER NOT NULL, 
	PRIMARY KEY (workspace, state, outcome, verdict, reason, captured, day)
)
 WITHOUT ROWID

;
INSERT INTO "pair_count" VALUES('eu','accepted','','','',0,0,4);
INSERT INTO "pair_count" VALUES('eu','settled','captured','activity','',1,0,1);
INSERT INTO "pair_count" VALUES('eu','settled','rejected','','status_400',0,0,1);
INSERT INTO "pair_count" VALUES('eu','waiting','','','',0,20468,1);
INSERT INTO "pair_count" VALUES('eu','waiting','','','',1,20467,1);
CREATE TABLE "part" (batch_id VARCHAR NOT NULL, dataset VARCHAR NOT NULL, destination VARCHAR NOT NULL, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, size_bytes INTEGER NOT NULL, row_count INTEGER NOT NULL, data BLOB, stored_order INTEGER, stored_at FLOAT, PRIMARY KEY (batch_id, dataset, destination), FOREIGN KEY(batch_id) REFERENCES batch (id), UNIQUE (stored_order));
INSERT INTO "part" VALUES('20260101T000000000000Z-58206b14','send_analytics','d','20260101T000000000000Z-58206b14.ndjson','digest',4,1,X'726F7773',NULL,NULL);
CREATE TABLE pruned_part (
	destination VARCHAR NOT NULL, 
	parts INTEGER NOT NULL, 
	stored_order INTEGER NOT NULL, 
	stored_at FLOAT NOT NULL, 
	PRIMARY KEY (destination)
);
CREATE TABLE reading_plan (
	workspace VARCHAR NOT NULL, 
	ages_days VARCHAR NOT NULL, 
	PRIMARY KEY (workspace)
);
INSERT INTO "reading_plan" VALUES('eu','[1.0,2.0,13.0]');
CREATE TABLE service (
	workspace VARCHAR NOT NULL, 
	served_until FLOAT NOT NULL, 
	PRIMARY KEY (workspace)
);
CREATE TABLE workspace (
	name VARCHAR NOT NULL, 
	halted_at FLOAT NOT NULL, 
	halted_because VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
CREATE INDEX pair_next ON pair (workspace, yields, expires_at, id) WHERE state = 'due';
CREATE INDEX pair_open ON pair (workspace, expires_at, state) WHERE state <> 'settled';
CREATE INDEX pair_deferred ON pair (workspace, due_at) WHERE state = 'waiting' AND deferrals > 0;
CREATE INDEX pair_expired ON pair (workspace, expires_at) WHERE outcome = 'expired';
CREATE INDEX outcome_pair ON outcome (pair_id);
CREATE INDEX outcome_rejected ON outcome (id) WHERE outcome = 'rejected';
CREATE INDEX pair_leased ON pair (epoch, workspace) WHERE state = 'leased';
CREATE INDEX batch_unstored ON batch (state, epoch) WHERE state <> 'stored';
CREATE INDEX pair_waiting ON pair (workspace, due_at, captures) WHERE state = 'waiting';
CREATE INDEX pair_send ON pair (send_id, workspace, campaign_id);
CREATE INDEX pair_failed ON pair (outcome, reason, id) WHERE outcome = 'rejected' OR outcome = 'expired';
CREATE TRIGGER pair_added AFTER INSERT ON pair BEGIN INSERT INTO pair_count VALUES (new.workspace, CASE WHEN new.state = 'waiting' AND new.deferrals > 0 THEN 'deferred' ELSE new.state END, CASE new.state WHEN 'settled' THEN coalesce(new.outcome, '') ELSE '' END, CASE new.state WHEN 'settled' THEN coalesce(new.verdict, '') ELSE '' END, CASE new.state WHEN 'settled' THEN coalesce(new.reason, '') ELSE '' END, new.captures > 0, CASE new.state WHEN 'settled' THEN 0 ELSE CAST((new.expires_at - 86400.0) / 86400.0 AS INTEGER) END, 1) ON CONFLICT DO UPDATE SET pairs = pairs + 1;INSERT INTO pair_count (workspace, state, pairs) VALUES (new.workspace, 'accepted', 1) ON CONFLICT DO UPDATE SET pairs = pairs + 1; END;
CREATE TRIGGER pair_deleted AFTER DELETE ON pair BEGIN INSERT INTO pair_count VALUES (old.workspace, CASE WHEN old.state = 'waiting' AND old.deferrals > 0 THEN 'deferred' ELSE old.state END, CASE old.state WHEN 'settled' THEN coalesce(old.outcome, '') ELSE '' END, CASE old.state WHEN 'settled' THEN coalesce(old.verdict, '') ELSE '' END, CASE old.state WHEN 'settled' THEN coalesce(old.reason, '') ELSE '' END, old.captures > 0, CASE old.state WHEN 'settled' THEN 0 ELSE CAST((old.expires_at - 86400.0) / 86400.0 AS INTEGER) END, -1) ON CONFLICT DO UPDATE SET pairs = pairs + -1;INSERT INTO pair_count (workspace, state, pairs) VALUES (old.workspace, 'accepted', -1) ON CONFLICT DO UPDATE SET pairs = pairs + -1; END;
CREATE TRIGGER pair_changed AFTER UPDATE OF state, outcome, verdict, reason, captures, deferrals, expires_at ON pair WHEN (old.workspace, CASE WHEN old.state = 'waiting' AND old.deferrals > 0 THEN 'deferred' ELSE old.state END, CASE old.state WHEN 'settled' THEN coalesce(old.outcome, '') ELSE '' END, CASE old.state WHEN 'settled' THEN coalesce(old.verdict, '') ELSE '' END, CASE old.state WHEN 'settled' THEN coalesce(old.reason, '') ELSE '' END, old.captures > 0, CASE old.state WHEN 'settled' THEN 0 ELSE CAST((old.expires_at - 86400.0) / 86400.0 AS INTEGER) END) IS NOT (new.workspace, CASE WHEN new.state = 'waiting' AND new.deferrals > 0 THEN 'deferred' ELSE new.state END, CASE new.state WHEN 'settled' THEN coalesce(new.outcome, '') ELSE '' END, CASE new.state WHEN 'settled' THEN coalesce(new.verdict, '') ELSE '' END, CASE new.state WHEN 'settled' THEN coalesce(new.reason, '') ELSE '' END, new.captures > 0, CASE new.state WHEN 'settled' THEN 0 ELSE CAST((new.expires_at - 86400.0) / 86400.0 AS INTEGER) END) BEGIN INSERT INTO pair_count VALUES (old.workspace, CASE WHEN old.state = 'waiting' AND old.deferrals > 0 THEN 'deferred' ELSE old.state END, CASE old.state WHEN 'settled' THEN coalesce(old.outcome, '') ELSE '' END, CASE old.state WHEN 'settled' THEN coalesce(old.verdict, '') ELSE '' END, CASE old.state WHEN 'settled' THEN coalesce(old.reason, '') ELSE '' END, old.captures > 0, CASE old.state WHEN 'settled' THEN 0 ELSE CAST((old.expires_at - 86400.0) / 86400.0 AS INTEGER) END, -1) ON CONFLICT DO UPDATE SET pairs = pairs + -1; INSERT INTO pair_count VALUES (new.workspace, CASE WHEN new.state = 'waiting' AND new.deferrals > 0 THEN 'deferred' ELSE new.state END, CASE new.state WHEN 'settled' THEN coalesce(new.outcome, '') ELSE '' END, CASE new.state WHEN 'settled' THEN coalesce(new.verdict, '') ELSE '' END, CASE new.state WHEN 'settled' THEN coalesce(new.reason, '') ELSE '' END, new.captures > 0, CASE new.state WHEN 'settled' THEN 0 ELSE CAST((new.expires_at - 86400.0) / 86400.0 AS INTEGER) END, 1) ON CONFLICT DO UPDATE SET pairs = pairs + 1; END;
CREATE TRIGGER outcome_added AFTER INSERT ON outcome BEGIN INSERT INTO outcome_count VALUES (new.outcome, 1) ON CONFLICT DO UPDATE SET readings = readings + 1; END;
CREATE TRIGGER outcome_deleted AFTER DELETE ON outcome BEGIN INSERT INTO outcome_count VALUES (old.outcome, -1) ON CONFLICT DO UPDATE SET readings = readings + -1; END;
CREATE INDEX pair_settled ON pair (expires_at) WHERE state = 'settled';
CREATE INDEX outcome_ended ON outcome (ended_at);
CREATE INDEX batch_stored ON batch (opened_at) WHERE state = 'stored';
DELETE FROM "sqlite_sequence";
COMMIT;
