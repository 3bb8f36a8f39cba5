BEGIN TRANSACTION;
CREATE TABLE about (
	ledger_id VARCHAR NOT NULL, 
	schema_version INTEGER NOT NULL, 
	PRIMARY KEY (ledger_id)
);
INSERT INTO "about" VALUES('381dc2413587fc426be0c82c98e6f2b8',1);
CREATE TABLE batch (
	id VARCHAR NOT NULL, 
	workspace VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	token VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	claimed_at FLOAT NOT NULL, 
	lease_until FLOAT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "batch" VALUES('20260101T000000000000Z-129f01f4','eu','f3be45b910f914ab','eadc17159e53caff','sealed',1767225600.0,1767225720.0);
INSERT INTO "batch" VALUES('20260101T000000000000Z-7aaf719b','eu','f3be45b910f914ab','6df2bf9fc1c82d73','stored',1767225600.0,1767225720.0);
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
INSERT INTO "outcome" VALUES(1,4,'once','captured','activity',NULL,NULL,1767225600.0,'20260101T000000000000Z-129f01f4');
INSERT INTO "outcome" VALUES(2,3,'once','rejected',NULL,'status_400','no',1767225600.0,'20260101T000000000000Z-7aaf719b');
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
	batch_id VARCHAR, 
	outcome VARCHAR, 
	verdict VARCHAR, 
	reason VARCHAR, 
	PRIMARY KEY (id), 
	UNIQUE (workspace, campaign_id, send_id)
);
INSERT INTO "pair" VALUES(1,'eu','c','s0',NULL,1767225600.0,1768521600.0,'once','due',1767225600.0,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "pair" VALUES(2,'eu','c','s1',1767139200.0,1767225600.0,1768435200.0,'once','due',1767225600.0,0,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "pair" VALUES(3,'eu','c','s2',1767052800.0,1767225600.0,1768348800.0,'once','settled',1767225600.0,0,1767225600.0,NULL,'rejected',NULL,'status_400');
INSERT INTO "pair" VALUES(4,'eu','c','s3',1766966400.0,1767225600.0,1768262400.0,'once','settled',1767225600.0,0,1767225600.0,NULL,'captured','activity',NULL);
CREATE TABLE part (
	batch_id VARCHAR NOT NULL, 
	dataset VARCHAR NOT NULL, 
	destination VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	size_bytes INTEGER NOT NULL, 
	row_count INTEGER NOT NULL, 
	data BLOB, 
	stored_order INTEGER, 
	stored_at FLOAT, 
	PRIMARY KEY (batch_id, dataset), 
	FOREIGN KEY(batch_id) REFERENCES batch (id), 
	UNIQUE (stored_order)
);
INSERT INTO "part" VALUES('20260101T000000000000Z-129f01f4','send_analytics','d','n','00',4,3,X'726F7773',NULL,NULL);
CREATE TABLE workspace (
	name VARCHAR NOT NULL, 
	halted_at FLOAT NOT NULL, 
	halted_because VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
CREATE INDEX pair_due ON pair (workspace, expires_at, id) WHERE state = 'due';
CREATE INDEX pair_waiting ON pair (workspace, due_at) WHERE state = 'waiting';
CREATE INDEX pair_leased ON pair (batch_id) WHERE state = 'leased';
CREATE INDEX batch_unstored ON batch (state, owner) WHERE state <> 'stored';
COMMIT;
