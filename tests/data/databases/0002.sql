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
    seconds double precision DEFAULT 0 NOT NULL
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
INSERT INTO public.api_keys VALUES ('01a2265a81738ed1b6f766f8c937846d', 'anna', 'af0b8f731a226ae6804e5628093276f3', 'af60f215ddf4529958e1c46d1f8b7d7218627c4cefbce112b7781b17d4dc584d', 'read,write', 16, 1795939795.321795, NULL, NULL, NULL);
INSERT INTO public.audit VALUES (1, 1795939795.322639, 'operator', '01a2265a81738ed1b6f766f8c937846d', 'create_key', 'anna: read,write', 201);
INSERT INTO public.events VALUES (1, '01a2265a817c8e7bb753de147e9b1d17', 'state', '{"state": "WAITING"}', 1795939795.326554);
INSERT INTO public.events VALUES (2, '01a2265a817c8e7bb753de147e9b1d17', 'state', '{"state": "RUNNING"}', 1795939795.332892);
INSERT INTO public.events VALUES (3, '01a2265a817c8e7bb753de147e9b1d17', 'stage', '{"stage": "estimate", "done": 0, "total": 1}', 1795939795.341951);
INSERT INTO public.events VALUES (4, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 0, "text": "calibration", "origin": "uniform"}', 1795939795.347499);
INSERT INTO public.events VALUES (5, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 1, "text": "calibration", "origin": "uniform"}', 1795939795.348345);
INSERT INTO public.events VALUES (6, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 2, "text": "calibration", "origin": "uniform"}', 1795939795.349165);
INSERT INTO public.events VALUES (7, '01a2265a817c8e7bb753de147e9b1d17', 'stage', '{"stage": "search", "done": 0, "total": 12}', 1795939795.350098);
INSERT INTO public.events VALUES (8, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 0, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795939795.354471);
INSERT INTO public.events VALUES (9, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 1, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939795.358137);
INSERT INTO public.events VALUES (10, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 2, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795939795.361905);
INSERT INTO public.events VALUES (11, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 3, "text": "calibration", "origin": "sweep"}', 1795939795.366343);
INSERT INTO public.events VALUES (12, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 3, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 11.957142857142856, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939795.369981);
INSERT INTO public.events VALUES (13, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 4, "text": "calibration", "origin": "sweep"}', 1795939795.374303);
INSERT INTO public.events VALUES (14, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 4, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 14.385714285714284, "bits": 3.5, "bits_per_weight": 3.5, "bytes": 3500.0, "seconds": 0.1}, "error": null}', 1795939795.377783);
INSERT INTO public.events VALUES (15, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 5, "text": "calibration", "origin": "sweep"}', 1795939795.381997);
INSERT INTO public.events VALUES (16, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 5, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.528571428571427, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795939795.385478);
INSERT INTO public.events VALUES (17, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 6, "text": "calibration", "origin": "sweep"}', 1795939795.389947);
INSERT INTO public.events VALUES (18, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 6, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 10.814285714285713, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}, "error": null}', 1795939795.393495);
INSERT INTO public.events VALUES (19, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 7, "text": "calibration", "origin": "sweep"}', 1795939795.397935);
INSERT INTO public.events VALUES (20, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 7, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.242857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939795.401749);
INSERT INTO public.events VALUES (21, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 8, "text": "calibration", "origin": "sweep"}', 1795939795.406423);
INSERT INTO public.events VALUES (22, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 8, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 12.385714285714284, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939795.410728);
INSERT INTO public.events VALUES (23, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 9, "text": "calibration", "origin": "sweep"}', 1795939795.415666);
INSERT INTO public.events VALUES (24, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 9, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 9.67142857142857, "bits": 4.833333333333333, "bits_per_weight": 4.833333333333333, "bytes": 4833.333333333333, "seconds": 0.1}, "error": null}', 1795939795.419877);
INSERT INTO public.events VALUES (25, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 10, "text": "calibration", "origin": "sweep"}', 1795939795.424358);
INSERT INTO public.events VALUES (26, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 10, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 12.1, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939795.428142);
INSERT INTO public.events VALUES (27, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 11, "text": "calibration", "origin": "sweep"}', 1795939795.43254);
INSERT INTO public.events VALUES (28, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 11, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.385714285714284, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795939795.436682);
INSERT INTO public.events VALUES (29, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 12, "text": "evaluation", "origin": "uniform"}', 1795939795.448333);
INSERT INTO public.events VALUES (30, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 13, "text": "evaluation", "origin": "sweep"}', 1795939795.449206);
INSERT INTO public.events VALUES (31, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 14, "text": "evaluation", "origin": "sweep"}', 1795939795.450027);
INSERT INTO public.events VALUES (32, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 15, "text": "evaluation", "origin": "sweep"}', 1795939795.450781);
INSERT INTO public.events VALUES (33, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 16, "text": "evaluation", "origin": "uniform"}', 1795939795.451559);
INSERT INTO public.events VALUES (34, '01a2265a817c8e7bb753de147e9b1d17', 'proposed', '{"number": 17, "text": "evaluation", "origin": "uniform"}', 1795939795.452642);
INSERT INTO public.events VALUES (35, '01a2265a817c8e7bb753de147e9b1d17', 'stage', '{"stage": "evaluate", "done": 0, "total": 6}', 1795939795.453684);
INSERT INTO public.events VALUES (36, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 12, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 18.024285714285718, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795939795.457435);
INSERT INTO public.events VALUES (37, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 13, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 14.724285714285713, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795939795.46185);
INSERT INTO public.events VALUES (38, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 14, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.152857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795939795.466149);
INSERT INTO public.events VALUES (39, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 15, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 11.895714285714286, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}, "error": null}', 1795939795.470388);
INSERT INTO public.events VALUES (40, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 16, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 9.067142857142857, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939795.474507);
INSERT INTO public.events VALUES (41, '01a2265a817c8e7bb753de147e9b1d17', 'trial', '{"number": 17, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.11000000000000001, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795939795.478913);
INSERT INTO public.events VALUES (42, '01a2265a817c8e7bb753de147e9b1d17', 'state', '{"state": "COMPLETE", "error": null}', 1795939795.481269);
INSERT INTO public.events VALUES (43, '01a2265a821a06c0ef9ce1b9796e88c7', 'state', '{"state": "WAITING"}', 1795939795.482986);
INSERT INTO public.events VALUES (44, '01a2265a821a06c0ef9ce1b9796e88c7', 'state', '{"state": "RUNNING"}', 1795939795.485345);
INSERT INTO public.events VALUES (45, '01a2265a821a06c0ef9ce1b9796e88c7', 'stage', '{"stage": "estimate", "done": 0, "total": 1}', 1795939795.489066);
INSERT INTO public.events VALUES (46, '01a2265a821a06c0ef9ce1b9796e88c7', 'proposed', '{"number": 0, "text": "calibration", "origin": "uniform"}', 1795939795.493143);
INSERT INTO public.events VALUES (47, '01a2265a821a06c0ef9ce1b9796e88c7', 'proposed', '{"number": 1, "text": "calibration", "origin": "uniform"}', 1795939795.493952);
INSERT INTO public.events VALUES (48, '01a2265a821a06c0ef9ce1b9796e88c7', 'proposed', '{"number": 2, "text": "calibration", "origin": "uniform"}', 1795939795.494698);
INSERT INTO public.events VALUES (49, '01a2265a821a06c0ef9ce1b9796e88c7', 'stage', '{"stage": "search", "done": 0, "total": 12}', 1795939795.495532);
INSERT INTO public.events VALUES (50, '01a2265a821a06c0ef9ce1b9796e88c7', 'trial', '{"number": 0, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795939795.499125);
INSERT INTO public.events VALUES (51, '01a2265a821a06c0ef9ce1b9796e88c7', 'trial', '{"number": 1, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795939795.503125);
INSERT INTO public.events VALUES (52, '01a2265a821a06c0ef9ce1b9796e88c7', 'trial', '{"number": 2, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795939795.50709);
INSERT INTO public.events VALUES (53, '01a2265a821a06c0ef9ce1b9796e88c7', 'proposed', '{"number": 3, "text": "calibration", "origin": "sweep"}', 1795939795.511862);
INSERT INTO public.events VALUES (54, '01a2265a821a06c0ef9ce1b9796e88c7', 'trial', '{"number": 3, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 15.385714285714284, "bits": 2.8333333333333335, "bits_per_weight": 2.8333333333333335, "bytes": 2833.3333333333335, "seconds": 0.1}, "error": null}', 1795939795.51565);
INSERT INTO public.events VALUES (55, '01a2265a821a06c0ef9ce1b9796e88c7', 'proposed', '{"number": 4, "text": "calibration", "origin": "sweep"}', 1795939795.52041);
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
INSERT INTO public.studies VALUES ('01a2265a821a06c0ef9ce1b9796e88c7', 'anna', '{
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
}', 'RUNNING', 'search', 4, 12, false, 'cpu', '21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', NULL, 1795939795.482786, 1795939795.48516, NULL, NULL);
INSERT INTO public.studies VALUES ('01a2265a817c8e7bb753de147e9b1d17', 'anna', '{
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
}', 'COMPLETE', 'evaluate', 6, 6, true, 'cpu', '21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', NULL, 1795939795.325668, 1795939795.332665, 1795939795.481052, NULL);
INSERT INTO public.tasks VALUES (1, '01a2265a817c8e7bb753de147e9b1d17', 'prepare', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.328325, 1795939795.331587, 1795939795.337116, NULL, 0.005532979965209961);
INSERT INTO public.tasks VALUES (2, '01a2265a817c8e7bb753de147e9b1d17', 'estimate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.341341, 1795939795.343332, 1795939795.345112, NULL, 0.0017819404602050781);
INSERT INTO public.tasks VALUES (3, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.34726, 1795939795.351324, 1795939795.353525, NULL, 0.0022039413452148438);
INSERT INTO public.tasks VALUES (4, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.348176, 1795939795.356139, 1795939795.357647, NULL, 0.0015110969543457031);
INSERT INTO public.tasks VALUES (5, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.348999, 1795939795.359842, 1795939795.361403, NULL, 0.00156402587890625);
INSERT INTO public.tasks VALUES (6, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.36278, 1795939795.363871, 1795939795.36528, NULL, 0.0014109611511230469);
INSERT INTO public.tasks VALUES (7, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.366178, 1795939795.367853, 1795939795.369472, NULL, 0.0016210079193115234);
INSERT INTO public.tasks VALUES (8, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.370841, 1795939795.371899, 1795939795.373232, NULL, 0.00133514404296875);
INSERT INTO public.tasks VALUES (9, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 4, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.374134, 1795939795.375774, 1795939795.377286, NULL, 0.0015151500701904297);
INSERT INTO public.tasks VALUES (10, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.378627, 1795939795.379725, 1795939795.380982, NULL, 0.0012590885162353516);
INSERT INTO public.tasks VALUES (11, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 5, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.381838, 1795939795.383418, 1795939795.384976, NULL, 0.0015609264373779297);
INSERT INTO public.tasks VALUES (12, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.386396, 1795939795.387433, 1795939795.388813, NULL, 0.001383066177368164);
INSERT INTO public.tasks VALUES (13, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 6, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.389768, 1795939795.391426, 1795939795.392977, NULL, 0.0015528202056884766);
INSERT INTO public.tasks VALUES (14, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 4, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.394374, 1795939795.395339, 1795939795.39684, NULL, 0.00150299072265625);
INSERT INTO public.tasks VALUES (15, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 7, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.397761, 1795939795.399462, 1795939795.401168, NULL, 0.001708984375);
INSERT INTO public.tasks VALUES (16, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 5, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.402667, 1795939795.403762, 1795939795.4053, NULL, 0.0015399456024169922);
INSERT INTO public.tasks VALUES (17, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 8, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.406247, 1795939795.407957, 1795939795.410147, NULL, 0.002192974090576172);
INSERT INTO public.tasks VALUES (18, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 6, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.411723, 1795939795.412898, 1795939795.414322, NULL, 0.0014259815216064453);
INSERT INTO public.tasks VALUES (19, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 9, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.415489, 1795939795.417378, 1795939795.419317, NULL, 0.0019421577453613281);
INSERT INTO public.tasks VALUES (20, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 7, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.420762, 1795939795.421852, 1795939795.423191, NULL, 0.0013408660888671875);
INSERT INTO public.tasks VALUES (21, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 10, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.424169, 1795939795.425945, 1795939795.427643, NULL, 0.0016999244689941406);
INSERT INTO public.tasks VALUES (22, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 8, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.429043, 1795939795.430071, 1795939795.431413, NULL, 0.001344919204711914);
INSERT INTO public.tasks VALUES (23, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 11, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.432363, 1795939795.43421, 1795939795.436099, NULL, 0.0018918514251708984);
INSERT INTO public.tasks VALUES (24, '01a2265a817c8e7bb753de147e9b1d17', 'propose', 9, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.437636, 1795939795.438827, 1795939795.440351, NULL, 0.00152587890625);
INSERT INTO public.tasks VALUES (25, '01a2265a817c8e7bb753de147e9b1d17', 'finalists', 12, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.442489, 1795939795.443687, 1795939795.44711, NULL, 0.003426074981689453);
INSERT INTO public.tasks VALUES (26, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 12, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.448139, 1795939795.455051, 1795939795.456874, NULL, 0.001825094223022461);
INSERT INTO public.tasks VALUES (27, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 13, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.449028, 1795939795.45953, 1795939795.461286, NULL, 0.0017578601837158203);
INSERT INTO public.tasks VALUES (28, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 14, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.449856, 1795939795.463818, 1795939795.465577, NULL, 0.0017609596252441406);
INSERT INTO public.tasks VALUES (29, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 15, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.450616, 1795939795.468078, 1795939795.469833, NULL, 0.0017571449279785156);
INSERT INTO public.tasks VALUES (30, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 16, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.451393, 1795939795.472275, 1795939795.47396, NULL, 0.0016880035400390625);
INSERT INTO public.tasks VALUES (31, '01a2265a817c8e7bb753de147e9b1d17', 'evaluate', 17, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.452397, 1795939795.476718, 1795939795.478335, NULL, 0.001619100570678711);
INSERT INTO public.tasks VALUES (32, '01a2265a821a06c0ef9ce1b9796e88c7', 'prepare', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.483274, 1795939795.484398, 1795939795.4869, NULL, 0.002505064010620117);
INSERT INTO public.tasks VALUES (33, '01a2265a821a06c0ef9ce1b9796e88c7', 'estimate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.488613, 1795939795.49025, 1795939795.491969, NULL, 0.0017218589782714844);
INSERT INTO public.tasks VALUES (34, '01a2265a821a06c0ef9ce1b9796e88c7', 'evaluate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.492957, 1795939795.49679, 1795939795.498463, NULL, 0.0016751289367675781);
INSERT INTO public.tasks VALUES (35, '01a2265a821a06c0ef9ce1b9796e88c7', 'evaluate', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.493785, 1795939795.500935, 1795939795.502585, NULL, 0.0016520023345947266);
INSERT INTO public.tasks VALUES (36, '01a2265a821a06c0ef9ce1b9796e88c7', 'evaluate', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.494539, 1795939795.504901, 1795939795.506539, NULL, 0.0016410350799560547);
INSERT INTO public.tasks VALUES (37, '01a2265a821a06c0ef9ce1b9796e88c7', 'propose', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.508005, 1795939795.509194, 1795939795.51069, NULL, 0.001499176025390625);
INSERT INTO public.tasks VALUES (38, '01a2265a821a06c0ef9ce1b9796e88c7', 'evaluate', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.511682, 1795939795.513427, 1795939795.515066, NULL, 0.001641988754272461);
INSERT INTO public.tasks VALUES (39, '01a2265a821a06c0ef9ce1b9796e88c7', 'propose', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795939795.516544, 1795939795.517722, 1795939795.519229, NULL, 0.0015091896057128906);
INSERT INTO public.tasks VALUES (40, '01a2265a821a06c0ef9ce1b9796e88c7', 'evaluate', 4, 'cpu', 'WAITING', 0, 0, NULL, NULL, NULL, 1795939795.520203, NULL, NULL, NULL, 0);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 0, 'calibration', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 1, 'calibration', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 2, 'calibration', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 3, 'calibration', 0, 'sweep', 't', '\x010000000002', '4b6649f7641ad148b6213cf3abd9fb708c0c9626484155625eed4aa1ff88b4c3', 'COMPLETE', '{"kl": 11.957142857142856, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 4, 'calibration', 1, 'sweep', 't', '\x020000000000', '398f405104434c20ada5bd33b56136ca43283bffcd2ee9533cbc36b73b0edc47', 'COMPLETE', '{"kl": 14.385714285714284, "bits": 3.5, "bits_per_weight": 3.5, "bytes": 3500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 5, 'calibration', 2, 'sweep', 't', '\x000100000001', '74cd085109408afe146472613c09c1565e765f1ebb422e0a77addb2fe61919a6', 'COMPLETE', '{"kl": 13.528571428571427, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 6, 'calibration', 3, 'sweep', 't', '\x010100000002', 'fb439d314446740682e272ca868d83749609eb977367e1e13a44a5574d80db51', 'COMPLETE', '{"kl": 10.814285714285713, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 7, 'calibration', 4, 'sweep', 't', '\x020100000000', 'b5bf6513cecf38e86914bf0252fdbc5ed7192e2a0f17c6153613e77912733411', 'COMPLETE', '{"kl": 13.242857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 8, 'calibration', 5, 'sweep', 't', '\x000200000001', 'cd8472c443113328692ea7e6b19dac5b4ad8c9371ab5e73488d7cc457f76f727', 'COMPLETE', '{"kl": 12.385714285714284, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 9, 'calibration', 6, 'sweep', 't', '\x010200000002', 'ad122c10decbbc035ef142f7fd75b83604b46862aaf72be68963d35ed29a08bf', 'COMPLETE', '{"kl": 9.67142857142857, "bits": 4.833333333333333, "bits_per_weight": 4.833333333333333, "bytes": 4833.333333333333, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 10, 'calibration', 7, 'sweep', 't', '\x020200000000', '5febe518d9e64b3a64b3e128d01f0f2e2ba91c30335493d222d0664ceff60df3', 'COMPLETE', '{"kl": 12.1, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 11, 'calibration', 8, 'sweep', 't', '\x000001000001', '40a3c89de48df6ca5c874beff66ab9e2182239f5bcbc1907ac0a84e6c22f8e89', 'COMPLETE', '{"kl": 13.385714285714284, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 12, 'evaluation', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 18.024285714285718, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 13, 'evaluation', NULL, 'sweep', '', '\x000001000001', '40a3c89de48df6ca5c874beff66ab9e2182239f5bcbc1907ac0a84e6c22f8e89', 'COMPLETE', '{"kl": 14.724285714285713, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 14, 'evaluation', NULL, 'sweep', '', '\x010000000002', '4b6649f7641ad148b6213cf3abd9fb708c0c9626484155625eed4aa1ff88b4c3', 'COMPLETE', '{"kl": 13.152857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 15, 'evaluation', NULL, 'sweep', '', '\x010100000002', 'fb439d314446740682e272ca868d83749609eb977367e1e13a44a5574d80db51', 'COMPLETE', '{"kl": 11.895714285714286, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 16, 'evaluation', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 9.067142857142857, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a817c8e7bb753de147e9b1d17', 17, 'evaluation', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.11000000000000001, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a821a06c0ef9ce1b9796e88c7', 0, 'calibration', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a821a06c0ef9ce1b9796e88c7', 1, 'calibration', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a821a06c0ef9ce1b9796e88c7', 2, 'calibration', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a821a06c0ef9ce1b9796e88c7', 3, 'calibration', 0, 'sweep', 't', '\x010000000000', '4077673d65dd66898c1bc8c56c2d89bbdb341db55f7416a4b4ac29e392230720', 'COMPLETE', '{"kl": 15.385714285714284, "bits": 2.8333333333333335, "bits_per_weight": 2.8333333333333335, "bytes": 2833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a2265a821a06c0ef9ce1b9796e88c7', 4, 'calibration', 1, 'sweep', 't', '\x020000000001', 'cdd7d9ce39a1f0befb41c3da0097301e85ed3d7ddf982e60c830b9dbe1db9403', 'RUNNING', '{}', NULL);
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
