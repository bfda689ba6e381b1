SELECT pg_catalog.set_config('search_path', '', false);
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.api_keys (
    id character varying(32) NOT NULL,
    owner character varying(64) NOT NULL,
    salt character varying(32) NOT NULL,
    hash character varying(64) NOT NULL,
    scopes character varying(200) NOT NULL,
    max_running integer NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision,
    revoked_at double precision,
    max_device_hours double precision
);
CREATE TABLE public.artifacts (
    digest character varying(64) NOT NULL,
    nbytes double precision NOT NULL,
    created_at double precision NOT NULL
);
CREATE TABLE public.audit (
    id integer NOT NULL,
    at double precision NOT NULL,
    owner character varying(64) NOT NULL,
    key_id character varying(32),
    action character varying(64) NOT NULL,
    target character varying(200) NOT NULL,
    status integer NOT NULL
);
CREATE SEQUENCE public.audit_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.audit_id_seq OWNED BY public.audit.id;
CREATE TABLE public.checkpoints (
    study_id character varying(32) NOT NULL,
    number integer NOT NULL,
    trial integer NOT NULL,
    exporter character varying(64) NOT NULL,
    state character varying(16) NOT NULL,
    error text,
    created_at double precision NOT NULL,
    finished_at double precision
);
CREATE TABLE public.events (
    id integer NOT NULL,
    study_id character varying(32) NOT NULL,
    kind character varying(32) NOT NULL,
    body text NOT NULL,
    at double precision NOT NULL
);
CREATE SEQUENCE public.events_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.events_id_seq OWNED BY public.events.id;
CREATE TABLE public.files (
    study_id character varying(32) NOT NULL,
    name character varying(512) NOT NULL,
    digest character varying(64) NOT NULL
);
CREATE TABLE public.idempotency (
    owner character varying(64) NOT NULL,
    key character varying(200) NOT NULL,
    body_digest character varying(64) NOT NULL,
    study_id character varying(32) NOT NULL,
    created_at double precision NOT NULL
);
CREATE TABLE public.spaces (
    digest character varying(64) NOT NULL,
    body text NOT NULL
);
CREATE TABLE public.studies (
    id character varying(32) NOT NULL,
    owner character varying(64) NOT NULL,
    request text NOT NULL,
    state character varying(16) NOT NULL,
    stage character varying(16) NOT NULL,
    done integer NOT NULL,
    total integer NOT NULL,
    search_ended boolean NOT NULL,
    queue character varying(16) NOT NULL,
    space character varying(64),
    error text,
    created_at double precision NOT NULL,
    started_at double precision,
    finished_at double precision,
    max_device_hours double precision
);
CREATE TABLE public.tasks (
    id integer NOT NULL,
    study_id character varying(32) NOT NULL,
    stage character varying(16) NOT NULL,
    number integer NOT NULL,
    queue character varying(16) NOT NULL,
    state character varying(16) NOT NULL,
    fence integer NOT NULL,
    attempts integer NOT NULL,
    worker character varying(128),
    lease_until double precision,
    rung_at double precision,
    created_at double precision NOT NULL,
    started_at double precision,
    finished_at double precision,
    error text,
    seconds double precision DEFAULT '0'::double precision NOT NULL
);
CREATE SEQUENCE public.tasks_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.tasks_id_seq OWNED BY public.tasks.id;
CREATE TABLE public.trials (
    study_id character varying(32) NOT NULL,
    number integer NOT NULL,
    text character varying(16) NOT NULL,
    proposal integer,
    origin character varying(64) NOT NULL,
    target text NOT NULL,
    choice bytea NOT NULL,
    digest character varying(64) NOT NULL,
    state character varying(16) NOT NULL,
    measured text NOT NULL,
    error text
);
CREATE TABLE public.usage (
    owner character varying(64) NOT NULL,
    seconds double precision NOT NULL
);
CREATE TABLE public.workers (
    name character varying(128) NOT NULL,
    queue character varying(16) NOT NULL,
    transport character varying(16) NOT NULL,
    version character varying(32) NOT NULL,
    started_at double precision NOT NULL,
    seen_at double precision NOT NULL
);
ALTER TABLE ONLY public.audit ALTER COLUMN id SET DEFAULT nextval('public.audit_id_seq'::regclass);
ALTER TABLE ONLY public.events ALTER COLUMN id SET DEFAULT nextval('public.events_id_seq'::regclass);
ALTER TABLE ONLY public.tasks ALTER COLUMN id SET DEFAULT nextval('public.tasks_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('0002');
INSERT INTO public.api_keys VALUES ('01a22658b37d0b42a4961f3be54af433', 'anna', '4435c1aeac7a143b8b5872ab8d28e975', '9180652e6ecae8f935fce0f09131a9e07ee1808593285a346d051939ddb89edd', 'read,write', 16, 1795939677.076338, NULL, NULL, NULL);
INSERT INTO public.audit VALUES (1, 1795939677.077901, 'operator', '01a22658b37d0b42a4961f3be54af433', 'create_key', 'anna: read,write', 201);
INSERT INTO public.events VALUES (1, '01a22658b3a006de068c4ff227fd8ace', 'state', '{"state": "WAITING"}', 1795939677.095161);
INSERT INTO public.events VALUES (2, '01a22658b3a006de068c4ff227fd8ace', 'state', '{"state": "RUNNING"}', 1795939677.111713);
INSERT INTO public.events VALUES (3, '01a22658b3a006de068c4ff227fd8ace', 'stage', '{"stage": "estimate", "done": 0, "total": 1}', 1795939677.12403);
INSERT INTO public.events VALUES (4, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 0, "text": "calibration", "origin": "uniform"}', 1795939677.143746);
INSERT INTO public.events VALUES (5, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 1, "text": "calibration", "origin": "uniform"}', 1795939677.144928);
INSERT INTO public.events VALUES (6, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 2, "text": "calibration", "origin": "uniform"}', 1795939677.145844);
INSERT INTO public.events VALUES (7, '01a22658b3a006de068c4ff227fd8ace', 'stage', '{"stage": "search", "done": 0, "total": 12}', 1795939677.148699);
INSERT INTO public.events VALUES (8, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 0, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795939677.164506);
INSERT INTO public.events VALUES (9, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 1, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939677.178307);
INSERT INTO public.events VALUES (10, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 2, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795939677.1879);
INSERT INTO public.events VALUES (11, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 3, "text": "calibration", "origin": "sweep"}', 1795939677.197765);
INSERT INTO public.events VALUES (12, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 3, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 11.957142857142856, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939677.209881);
INSERT INTO public.events VALUES (13, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 4, "text": "calibration", "origin": "sweep"}', 1795939677.216799);
INSERT INTO public.events VALUES (14, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 4, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 14.385714285714284, "bits": 3.5, "bits_per_weight": 3.5, "bytes": 3500.0, "seconds": 0.1}, "error": null}', 1795939677.220905);
INSERT INTO public.events VALUES (15, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 5, "text": "calibration", "origin": "sweep"}', 1795939677.225791);
INSERT INTO public.events VALUES (16, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 5, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.528571428571427, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795939677.229988);
INSERT INTO public.events VALUES (17, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 6, "text": "calibration", "origin": "sweep"}', 1795939677.234636);
INSERT INTO public.events VALUES (18, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 6, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 10.814285714285713, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}, "error": null}', 1795939677.23844);
INSERT INTO public.events VALUES (19, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 7, "text": "calibration", "origin": "sweep"}', 1795939677.243262);
INSERT INTO public.events VALUES (20, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 7, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.242857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939677.247612);
INSERT INTO public.events VALUES (21, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 8, "text": "calibration", "origin": "sweep"}', 1795939677.255418);
INSERT INTO public.events VALUES (22, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 8, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 12.385714285714284, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939677.264071);
INSERT INTO public.events VALUES (23, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 9, "text": "calibration", "origin": "sweep"}', 1795939677.271623);
INSERT INTO public.events VALUES (24, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 9, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 9.67142857142857, "bits": 4.833333333333333, "bits_per_weight": 4.833333333333333, "bytes": 4833.333333333333, "seconds": 0.1}, "error": null}', 1795939677.279116);
INSERT INTO public.events VALUES (25, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 10, "text": "calibration", "origin": "sweep"}', 1795939677.290229);
INSERT INTO public.events VALUES (26, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 10, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 12.1, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939677.313002);
INSERT INTO public.events VALUES (27, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 11, "text": "calibration", "origin": "sweep"}', 1795939677.330317);
INSERT INTO public.events VALUES (28, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 11, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.385714285714284, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795939677.341753);
INSERT INTO public.events VALUES (29, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 12, "text": "evaluation", "origin": "uniform"}', 1795939677.374056);
INSERT INTO public.events VALUES (30, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 13, "text": "evaluation", "origin": "sweep"}', 1795939677.374915);
INSERT INTO public.events VALUES (31, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 14, "text": "evaluation", "origin": "sweep"}', 1795939677.375759);
INSERT INTO public.events VALUES (32, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 15, "text": "evaluation", "origin": "sweep"}', 1795939677.376529);
INSERT INTO public.events VALUES (33, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 16, "text": "evaluation", "origin": "uniform"}', 1795939677.380287);
INSERT INTO public.events VALUES (34, '01a22658b3a006de068c4ff227fd8ace', 'proposed', '{"number": 17, "text": "evaluation", "origin": "uniform"}', 1795939677.381155);
INSERT INTO public.events VALUES (35, '01a22658b3a006de068c4ff227fd8ace', 'stage', '{"stage": "evaluate", "done": 0, "total": 6}', 1795939677.382195);
INSERT INTO public.events VALUES (36, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 12, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 18.024285714285718, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795939677.393964);
INSERT INTO public.events VALUES (37, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 13, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 14.724285714285713, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795939677.405692);
INSERT INTO public.events VALUES (38, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 14, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.152857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939677.416252);
INSERT INTO public.events VALUES (39, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 15, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 11.895714285714286, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}, "error": null}', 1795939677.436353);
INSERT INTO public.events VALUES (40, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 16, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 9.067142857142857, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939677.458988);
INSERT INTO public.events VALUES (41, '01a22658b3a006de068c4ff227fd8ace', 'trial', '{"number": 17, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.11000000000000001, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795939677.472611);
INSERT INTO public.events VALUES (42, '01a22658b3a006de068c4ff227fd8ace', 'state', '{"state": "COMPLETE", "error": null}', 1795939677.475243);
INSERT INTO public.events VALUES (43, '01a22658b52cb841cfb4d831f481ac5b', 'state', '{"state": "WAITING"}', 1795939677.485632);
INSERT INTO public.events VALUES (44, '01a22658b52cb841cfb4d831f481ac5b', 'state', '{"state": "RUNNING"}', 1795939677.496316);
INSERT INTO public.events VALUES (45, '01a22658b52cb841cfb4d831f481ac5b', 'stage', '{"stage": "estimate", "done": 0, "total": 1}', 1795939677.503099);
INSERT INTO public.events VALUES (46, '01a22658b52cb841cfb4d831f481ac5b', 'proposed', '{"number": 0, "text": "calibration", "origin": "uniform"}', 1795939677.514181);
INSERT INTO public.events VALUES (47, '01a22658b52cb841cfb4d831f481ac5b', 'proposed', '{"number": 1, "text": "calibration", "origin": "uniform"}', 1795939677.515062);
INSERT INTO public.events VALUES (48, '01a22658b52cb841cfb4d831f481ac5b', 'proposed', '{"number": 2, "text": "calibration", "origin": "uniform"}', 1795939677.515951);
INSERT INTO public.events VALUES (49, '01a22658b52cb841cfb4d831f481ac5b', 'stage', '{"stage": "search", "done": 0, "total": 12}', 1795939677.519868);
INSERT INTO public.events VALUES (50, '01a22658b52cb841cfb4d831f481ac5b', 'trial', '{"number": 0, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795939677.529653);
INSERT INTO public.events VALUES (51, '01a22658b52cb841cfb4d831f481ac5b', 'trial', '{"number": 1, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939677.537977);
INSERT INTO public.events VALUES (52, '01a22658b52cb841cfb4d831f481ac5b', 'trial', '{"number": 2, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795939677.544577);
INSERT INTO public.events VALUES (53, '01a22658b52cb841cfb4d831f481ac5b', 'proposed', '{"number": 3, "text": "calibration", "origin": "sweep"}', 1795939677.549774);
INSERT INTO public.events VALUES (54, '01a22658b52cb841cfb4d831f481ac5b', 'trial', '{"number": 3, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 15.385714285714284, "bits": 2.8333333333333335, "bits_per_weight": 2.8333333333333335, "bytes": 2833.3333333333335, "seconds": 0.1}, "error": null}', 1795939677.553741);
INSERT INTO public.events VALUES (55, '01a22658b52cb841cfb4d831f481ac5b', 'proposed', '{"number": 4, "text": "calibration", "origin": "sweep"}', 1795939677.558627);
INSERT INTO public.spaces VALUES ('21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', '{
 "layers": [
  [
   "layers.0.proj",
   [
    128,
    128
   ],
   "layers.0",
   0,
   "layers.0.proj"
  ],
  [
   "layers.1.proj",
   [
    128,
    128
   ],
   "layers.1",
   1,
   "layers.1.proj"
  ],
  [
   "layers.2.proj",
   [
    128,
    128
   ],
   "layers.2",
   2,
   "layers.2.proj"
  ],
  [
   "layers.3.proj",
   [
    128,
    128
   ],
   "layers.3",
   3,
   "layers.3.proj"
  ],
  [
   "layers.4.proj",
   [
    128,
    128
   ],
   "layers.4",
   4,
   "layers.4.proj"
  ],
  [
   "layers.5.proj",
   [
    128,
    128
   ],
   "layers.5",
   5,
   "layers.5.proj"
  ]
 ],
 "formats": [
  "int2_g64",
  "int4_g64",
  "int8_g64"
 ],
 "pinned": [],
 "fixed_bytes": 0
}');
INSERT INTO public.studies VALUES ('01a22658b52cb841cfb4d831f481ac5b', 'anna', '{
  "model": "org/model",
  "budget": {
    "value": 4.5,
    "unit": "bpw"
  },
  "calibration": {
    "source": "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3:wikitext-2-raw-v1:train",
    "n_sequences": 16,
    "sequence_length": 512
  },
  "evaluation": {
    "source": "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3:wikitext-2-raw-v1:test",
    "n_sequences": 16,
    "sequence_length": 512
  },
  "formats": [
    "int2_g64",
    "int4_g64",
    "int8_g64"
  ],
  "quantizer": {
    "name": "rtn",
    "params": {}
  },
  "estimator": {
    "name": "fisher_directional",
    "params": {}
  },
  "searches": [
    {
      "name": "trust_region",
      "params": {}
    },
    {
      "name": "posterior_ilp",
      "params": {}
    }
  ],
  "costs": [
    {
      "name": "memory",
      "params": {}
    }
  ],
  "n_pairs": 0,
  "n_trials": 12,
  "max_minutes": null,
  "patience": null,
  "n_parallel": 1,
  "n_search_sequences": 4,
  "n_finalists": 12,
  "seed": 1,
  "tied": true,
  "pinned": "int8_g64",
  "revision": null,
  "dtype": "auto",
  "device": "auto"
}', 'RUNNING', 'search', 4, 12, false, 'cpu', '21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', NULL, 1795939677.485327, 1795939677.496064, NULL, NULL);
INSERT INTO public.studies VALUES ('01a22658b3a006de068c4ff227fd8ace', 'anna', '{
  "model": "org/model",
  "budget": {
    "value": 4.5,
    "unit": "bpw"
  },
  "calibration": {
    "source": "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3:wikitext-2-raw-v1:train",
    "n_sequences": 16,
    "sequence_length": 512
  },
  "evaluation": {
    "source": "Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3:wikitext-2-raw-v1:test",
    "n_sequences": 16,
    "sequence_length": 512
  },
  "formats": [
    "int2_g64",
    "int4_g64",
    "int8_g64"
  ],
  "quantizer": {
    "name": "rtn",
    "params": {}
  },
  "estimator": {
    "name": "fisher_directional",
    "params": {}
  },
  "searches": [
    {
      "name": "trust_region",
      "params": {}
    },
    {
      "name": "posterior_ilp",
      "params": {}
    }
  ],
  "costs": [
    {
      "name": "memory",
      "params": {}
    }
  ],
  "n_pairs": 0,
  "n_trials": 12,
  "max_minutes": null,
  "patience": null,
  "n_parallel": 1,
  "n_search_sequences": 4,
  "n_finalists": 12,
  "seed": 0,
  "tied": true,
  "pinned": "int8_g64",
  "revision": null,
  "dtype": "auto",
  "device": "auto"
}', 'COMPLETE', 'evaluate', 6, 6, true, 'cpu', '21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', NULL, 1795939677.093524, 1795939677.111069, 1795939677.474993, NULL);
INSERT INTO public.tasks VALUES (1, '01a22658b3a006de068c4ff227fd8ace', 'prepare', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.099135, 1795939677.107702, 1795939677.117367, NULL, 0.009672880172729492);
INSERT INTO public.tasks VALUES (2, '01a22658b3a006de068c4ff227fd8ace', 'estimate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.122418, 1795939677.130359, 1795939677.136043, NULL, 0.005692958831787109);
INSERT INTO public.tasks VALUES (3, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.143323, 1795939677.155582, 1795939677.163077, NULL, 0.007503986358642578);
INSERT INTO public.tasks VALUES (4, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.14473, 1795939677.171104, 1795939677.174524, NULL, 0.0034279823303222656);
INSERT INTO public.tasks VALUES (5, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.145663, 1795939677.181267, 1795939677.183869, NULL, 0.0026099681854248047);
INSERT INTO public.tasks VALUES (6, '01a22658b3a006de068c4ff227fd8ace', 'propose', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.189076, 1795939677.19106, 1795939677.196423, NULL, 0.0053708553314208984);
INSERT INTO public.tasks VALUES (7, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.197562, 1795939677.202739, 1795939677.209262, NULL, 0.006531953811645508);
INSERT INTO public.tasks VALUES (8, '01a22658b3a006de068c4ff227fd8ace', 'propose', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.211568, 1795939677.213068, 1795939677.215557, NULL, 0.0024940967559814453);
INSERT INTO public.tasks VALUES (9, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 4, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.216598, 1795939677.218666, 1795939677.220378, NULL, 0.0017158985137939453);
INSERT INTO public.tasks VALUES (10, '01a22658b3a006de068c4ff227fd8ace', 'propose', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.221852, 1795939677.223148, 1795939677.224619, NULL, 0.0014748573303222656);
INSERT INTO public.tasks VALUES (11, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 5, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.225603, 1795939677.227736, 1795939677.229415, NULL, 0.0016829967498779297);
INSERT INTO public.tasks VALUES (12, '01a22658b3a006de068c4ff227fd8ace', 'propose', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.230947, 1795939677.232173, 1795939677.233524, NULL, 0.0013539791107177734);
INSERT INTO public.tasks VALUES (13, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 6, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.234455, 1795939677.236384, 1795939677.237925, NULL, 0.0015439987182617188);
INSERT INTO public.tasks VALUES (14, '01a22658b3a006de068c4ff227fd8ace', 'propose', 4, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.239413, 1795939677.240788, 1795939677.242092, NULL, 0.0013079643249511719);
INSERT INTO public.tasks VALUES (15, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 7, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.243072, 1795939677.245053, 1795939677.247002, NULL, 0.0019528865814208984);
INSERT INTO public.tasks VALUES (16, '01a22658b3a006de068c4ff227fd8ace', 'propose', 5, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.248868, 1795939677.250274, 1795939677.253355, NULL, 0.0030851364135742188);
INSERT INTO public.tasks VALUES (17, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 8, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.254934, 1795939677.257902, 1795939677.261375, NULL, 0.0034780502319335938);
INSERT INTO public.tasks VALUES (18, '01a22658b3a006de068c4ff227fd8ace', 'propose', 6, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.265085, 1795939677.268634, 1795939677.270312, NULL, 0.0016818046569824219);
INSERT INTO public.tasks VALUES (19, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 9, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.271335, 1795939677.276412, 1795939677.278555, NULL, 0.0021469593048095703);
INSERT INTO public.tasks VALUES (20, '01a22658b3a006de068c4ff227fd8ace', 'propose', 7, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.281722, 1795939677.283592, 1795939677.287608, NULL, 0.004022121429443359);
INSERT INTO public.tasks VALUES (21, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 10, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.289779, 1795939677.301327, 1795939677.312172, NULL, 0.010859012603759766);
INSERT INTO public.tasks VALUES (22, '01a22658b3a006de068c4ff227fd8ace', 'propose', 8, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.314291, 1795939677.324885, 1795939677.328914, NULL, 0.004034996032714844);
INSERT INTO public.tasks VALUES (23, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 11, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.330103, 1795939677.336156, 1795939677.341113, NULL, 0.004964113235473633);
INSERT INTO public.tasks VALUES (24, '01a22658b3a006de068c4ff227fd8ace', 'propose', 9, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.342883, 1795939677.346973, 1795939677.350843, NULL, 0.003874063491821289);
INSERT INTO public.tasks VALUES (25, '01a22658b3a006de068c4ff227fd8ace', 'finalists', 12, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.357257, 1795939677.3605, 1795939677.372729, NULL, 0.012237787246704102);
INSERT INTO public.tasks VALUES (26, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 12, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.373851, 1795939677.386223, 1795939677.393335, NULL, 0.0071179866790771484);
INSERT INTO public.tasks VALUES (27, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 13, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.374741, 1795939677.400633, 1795939677.405077, NULL, 0.0044498443603515625);
INSERT INTO public.tasks VALUES (28, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 14, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.375591, 1795939677.412377, 1795939677.415646, NULL, 0.0032727718353271484);
INSERT INTO public.tasks VALUES (29, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 15, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.376373, 1795939677.421508, 1795939677.43237, NULL, 0.010869979858398438);
INSERT INTO public.tasks VALUES (30, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 16, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.380115, 1795939677.448671, 1795939677.455696, NULL, 0.007034778594970703);
INSERT INTO public.tasks VALUES (31, '01a22658b3a006de068c4ff227fd8ace', 'evaluate', 17, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.38097, 1795939677.465508, 1795939677.471819, NULL, 0.006319999694824219);
INSERT INTO public.tasks VALUES (32, '01a22658b52cb841cfb4d831f481ac5b', 'prepare', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.486019, 1795939677.49254, 1795939677.500743, NULL, 0.008207082748413086);
INSERT INTO public.tasks VALUES (33, '01a22658b52cb841cfb4d831f481ac5b', 'estimate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.502679, 1795939677.508447, 1795939677.512893, NULL, 0.00445103645324707);
INSERT INTO public.tasks VALUES (34, '01a22658b52cb841cfb4d831f481ac5b', 'evaluate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.513979, 1795939677.524484, 1795939677.529036, NULL, 0.004557132720947266);
INSERT INTO public.tasks VALUES (35, '01a22658b52cb841cfb4d831f481ac5b', 'evaluate', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.51488, 1795939677.53365, 1795939677.535774, NULL, 0.002128124237060547);
INSERT INTO public.tasks VALUES (36, '01a22658b52cb841cfb4d831f481ac5b', 'evaluate', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.51577, 1795939677.540672, 1795939677.543467, NULL, 0.002797842025756836);
INSERT INTO public.tasks VALUES (37, '01a22658b52cb841cfb4d831f481ac5b', 'propose', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.545899, 1795939677.547168, 1795939677.548649, NULL, 0.001483917236328125);
INSERT INTO public.tasks VALUES (38, '01a22658b52cb841cfb4d831f481ac5b', 'evaluate', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.549591, 1795939677.55164, 1795939677.553204, NULL, 0.0015668869018554688);
INSERT INTO public.tasks VALUES (39, '01a22658b52cb841cfb4d831f481ac5b', 'propose', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939677.554718, 1795939677.555961, 1795939677.557386, NULL, 0.0014290809631347656);
INSERT INTO public.tasks VALUES (40, '01a22658b52cb841cfb4d831f481ac5b', 'evaluate', 4, 'cpu', 'WAITING', 0, 0, NULL, NULL, NULL, 1795939677.558438, NULL, NULL, NULL, 0);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 0, 'calibration', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 1, 'calibration', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 2, 'calibration', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 3, 'calibration', 0, 'sweep', 't', '\x010000000002', '4b6649f7641ad148b6213cf3abd9fb708c0c9626484155625eed4aa1ff88b4c3', 'COMPLETE', '{"kl": 11.957142857142856, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 4, 'calibration', 1, 'sweep', 't', '\x020000000000', '398f405104434c20ada5bd33b56136ca43283bffcd2ee9533cbc36b73b0edc47', 'COMPLETE', '{"kl": 14.385714285714284, "bits": 3.5, "bits_per_weight": 3.5, "bytes": 3500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 5, 'calibration', 2, 'sweep', 't', '\x000100000001', '74cd085109408afe146472613c09c1565e765f1ebb422e0a77addb2fe61919a6', 'COMPLETE', '{"kl": 13.528571428571427, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 6, 'calibration', 3, 'sweep', 't', '\x010100000002', 'fb439d314446740682e272ca868d83749609eb977367e1e13a44a5574d80db51', 'COMPLETE', '{"kl": 10.814285714285713, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 7, 'calibration', 4, 'sweep', 't', '\x020100000000', 'b5bf6513cecf38e86914bf0252fdbc5ed7192e2a0f17c6153613e77912733411', 'COMPLETE', '{"kl": 13.242857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 8, 'calibration', 5, 'sweep', 't', '\x000200000001', 'cd8472c443113328692ea7e6b19dac5b4ad8c9371ab5e73488d7cc457f76f727', 'COMPLETE', '{"kl": 12.385714285714284, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 9, 'calibration', 6, 'sweep', 't', '\x010200000002', 'ad122c10decbbc035ef142f7fd75b83604b46862aaf72be68963d35ed29a08bf', 'COMPLETE', '{"kl": 9.67142857142857, "bits": 4.833333333333333, "bits_per_weight": 4.833333333333333, "bytes": 4833.333333333333, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 10, 'calibration', 7, 'sweep', 't', '\x020200000000', '5febe518d9e64b3a64b3e128d01f0f2e2ba91c30335493d222d0664ceff60df3', 'COMPLETE', '{"kl": 12.1, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 11, 'calibration', 8, 'sweep', 't', '\x000001000001', '40a3c89de48df6ca5c874beff66ab9e2182239f5bcbc1907ac0a84e6c22f8e89', 'COMPLETE', '{"kl": 13.385714285714284, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 12, 'evaluation', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 18.024285714285718, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 13, 'evaluation', NULL, 'sweep', '', '\x000001000001', '40a3c89de48df6ca5c874beff66ab9e2182239f5bcbc1907ac0a84e6c22f8e89', 'COMPLETE', '{"kl": 14.724285714285713, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 14, 'evaluation', NULL, 'sweep', '', '\x010000000002', '4b6649f7641ad148b6213cf3abd9fb708c0c9626484155625eed4aa1ff88b4c3', 'COMPLETE', '{"kl": 13.152857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 15, 'evaluation', NULL, 'sweep', '', '\x010100000002', 'fb439d314446740682e272ca868d83749609eb977367e1e13a44a5574d80db51', 'COMPLETE', '{"kl": 11.895714285714286, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 16, 'evaluation', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 9.067142857142857, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b3a006de068c4ff227fd8ace', 17, 'evaluation', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.11000000000000001, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b52cb841cfb4d831f481ac5b', 0, 'calibration', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b52cb841cfb4d831f481ac5b', 1, 'calibration', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b52cb841cfb4d831f481ac5b', 2, 'calibration', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b52cb841cfb4d831f481ac5b', 3, 'calibration', 0, 'sweep', 't', '\x010000000000', '4077673d65dd66898c1bc8c56c2d89bbdb341db55f7416a4b4ac29e392230720', 'COMPLETE', '{"kl": 15.385714285714284, "bits": 2.8333333333333335, "bits_per_weight": 2.8333333333333335, "bytes": 2833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22658b52cb841cfb4d831f481ac5b', 4, 'calibration', 1, 'sweep', 't', '\x020000000001', 'cdd7d9ce39a1f0befb41c3da0097301e85ed3d7ddf982e60c830b9dbe1db9403', 'RUNNING', '{}', NULL);
SELECT pg_catalog.setval('public.audit_id_seq', 1, true);
SELECT pg_catalog.setval('public.events_id_seq', 55, true);
SELECT pg_catalog.setval('public.tasks_id_seq', 40, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT pk_api_keys PRIMARY KEY (id);
ALTER TABLE ONLY public.artifacts
    ADD CONSTRAINT pk_artifacts PRIMARY KEY (digest);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT pk_audit PRIMARY KEY (id);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT pk_checkpoints PRIMARY KEY (study_id, number);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT pk_events PRIMARY KEY (id);
ALTER TABLE ONLY public.files
    ADD CONSTRAINT pk_files PRIMARY KEY (study_id, name);
ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT pk_idempotency PRIMARY KEY (owner, key);
ALTER TABLE ONLY public.spaces
    ADD CONSTRAINT pk_spaces PRIMARY KEY (digest);
ALTER TABLE ONLY public.studies
    ADD CONSTRAINT pk_studies PRIMARY KEY (id);
ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT pk_tasks PRIMARY KEY (id);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT pk_trials PRIMARY KEY (study_id, number);
ALTER TABLE ONLY public.usage
    ADD CONSTRAINT pk_usage PRIMARY KEY (owner);
ALTER TABLE ONLY public.workers
    ADD CONSTRAINT pk_workers PRIMARY KEY (name);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT uq_checkpoints_study_id_trial_exporter UNIQUE (study_id, trial, exporter);
ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT uq_tasks_study_id_stage_number UNIQUE (study_id, stage, number);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT uq_trials_study_id_proposal UNIQUE (study_id, proposal);
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT uq_trials_study_id_text_digest UNIQUE (study_id, text, digest);
CREATE INDEX ix_events_study_id_id ON public.events USING btree (study_id, id);
CREATE INDEX ix_files_digest ON public.files USING btree (digest);
CREATE INDEX ix_studies_owner_id ON public.studies USING btree (owner, id);
CREATE INDEX ix_studies_state ON public.studies USING btree (state);
CREATE INDEX ix_tasks_state_queue ON public.tasks USING btree (state, queue);
CREATE INDEX ix_trials_study_id_state ON public.trials USING btree (study_id, state);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT fk_checkpoints_study_id_trial FOREIGN KEY (study_id, trial) REFERENCES public.trials(study_id, number) ON DELETE CASCADE;
ALTER TABLE ONLY public.events
    ADD CONSTRAINT fk_events_study_id FOREIGN KEY (study_id) REFERENCES public.studies(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.files
    ADD CONSTRAINT fk_files_digest FOREIGN KEY (digest) REFERENCES public.artifacts(digest);
ALTER TABLE ONLY public.files
    ADD CONSTRAINT fk_files_study_id FOREIGN KEY (study_id) REFERENCES public.studies(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT fk_idempotency_study_id FOREIGN KEY (study_id) REFERENCES public.studies(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.studies
    ADD CONSTRAINT fk_studies_space FOREIGN KEY (space) REFERENCES public.spaces(digest);
ALTER TABLE ONLY public.tasks
    ADD CONSTRAINT fk_tasks_study_id FOREIGN KEY (study_id) REFERENCES public.studies(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.trials
    ADD CONSTRAINT fk_trials_study_id FOREIGN KEY (study_id) REFERENCES public.studies(id) ON DELETE CASCADE;
