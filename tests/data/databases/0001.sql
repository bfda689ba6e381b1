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
    revoked_at double precision
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
    finished_at double precision
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
    error text
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
INSERT INTO public.alembic_version VALUES ('0001');
INSERT INTO public.api_keys VALUES ('01a22643b132379ec76a468b73dbfe01', 'anna', '3d4c442de7c7eaaf7b78e70c4f8c3c40', '711a9b3bd5fee9317cbb832b1d67b8836c86409e4f3489c33fb059b6c280844f', 'read,write', 16, 1795938300.213191, NULL, NULL);
INSERT INTO public.events VALUES (1, '01a22643b13cf6e2833208bda06d1281', 'state', '{"state": "WAITING"}', 1795938300.230618);
INSERT INTO public.events VALUES (2, '01a22643b13cf6e2833208bda06d1281', 'state', '{"state": "RUNNING"}', 1795938300.272871);
INSERT INTO public.events VALUES (3, '01a22643b13cf6e2833208bda06d1281', 'stage', '{"stage": "estimate", "done": 0, "total": 1}', 1795938300.295842);
INSERT INTO public.events VALUES (4, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 0, "text": "calibration", "origin": "uniform"}', 1795938300.323145);
INSERT INTO public.events VALUES (5, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 1, "text": "calibration", "origin": "uniform"}', 1795938300.325544);
INSERT INTO public.events VALUES (6, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 2, "text": "calibration", "origin": "uniform"}', 1795938300.332406);
INSERT INTO public.events VALUES (7, '01a22643b13cf6e2833208bda06d1281', 'stage', '{"stage": "search", "done": 0, "total": 12}', 1795938300.334443);
INSERT INTO public.events VALUES (8, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 0, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795938300.368053);
INSERT INTO public.events VALUES (9, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 1, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795938300.417588);
INSERT INTO public.events VALUES (10, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 2, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795938300.4344);
INSERT INTO public.events VALUES (11, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 3, "text": "calibration", "origin": "sweep"}', 1795938300.456584);
INSERT INTO public.events VALUES (12, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 3, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 11.957142857142856, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795938300.47476);
INSERT INTO public.events VALUES (13, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 4, "text": "calibration", "origin": "sweep"}', 1795938300.500096);
INSERT INTO public.events VALUES (14, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 4, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 14.385714285714284, "bits": 3.5, "bits_per_weight": 3.5, "bytes": 3500.0, "seconds": 0.1}, "error": null}', 1795938300.536545);
INSERT INTO public.events VALUES (15, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 5, "text": "calibration", "origin": "sweep"}', 1795938300.568705);
INSERT INTO public.events VALUES (16, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 5, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.528571428571427, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795938300.588516);
INSERT INTO public.events VALUES (17, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 6, "text": "calibration", "origin": "sweep"}', 1795938300.612495);
INSERT INTO public.events VALUES (18, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 6, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 10.814285714285713, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}, "error": null}', 1795938300.63512);
INSERT INTO public.events VALUES (19, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 7, "text": "calibration", "origin": "sweep"}', 1795938300.676437);
INSERT INTO public.events VALUES (20, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 7, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.242857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795938300.720404);
INSERT INTO public.events VALUES (21, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 8, "text": "calibration", "origin": "sweep"}', 1795938300.776409);
INSERT INTO public.events VALUES (22, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 8, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 12.385714285714284, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795938300.81662);
INSERT INTO public.events VALUES (23, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 9, "text": "calibration", "origin": "sweep"}', 1795938300.864635);
INSERT INTO public.events VALUES (24, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 9, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 9.67142857142857, "bits": 4.833333333333333, "bits_per_weight": 4.833333333333333, "bytes": 4833.333333333333, "seconds": 0.1}, "error": null}', 1795938300.911766);
INSERT INTO public.events VALUES (25, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 10, "text": "calibration", "origin": "sweep"}', 1795938300.956823);
INSERT INTO public.events VALUES (26, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 10, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 12.1, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795938300.993673);
INSERT INTO public.events VALUES (27, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 11, "text": "calibration", "origin": "sweep"}', 1795938301.038285);
INSERT INTO public.events VALUES (28, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 11, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.385714285714284, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795938301.084583);
INSERT INTO public.events VALUES (29, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 12, "text": "evaluation", "origin": "uniform"}', 1795938301.179696);
INSERT INTO public.events VALUES (30, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 13, "text": "evaluation", "origin": "sweep"}', 1795938301.182966);
INSERT INTO public.events VALUES (31, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 14, "text": "evaluation", "origin": "sweep"}', 1795938301.186773);
INSERT INTO public.events VALUES (32, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 15, "text": "evaluation", "origin": "sweep"}', 1795938301.19597);
INSERT INTO public.events VALUES (33, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 16, "text": "evaluation", "origin": "uniform"}', 1795938301.200225);
INSERT INTO public.events VALUES (34, '01a22643b13cf6e2833208bda06d1281', 'proposed', '{"number": 17, "text": "evaluation", "origin": "uniform"}', 1795938301.212115);
INSERT INTO public.events VALUES (35, '01a22643b13cf6e2833208bda06d1281', 'stage', '{"stage": "evaluate", "done": 0, "total": 6}', 1795938301.218296);
INSERT INTO public.events VALUES (36, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 12, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 18.024285714285718, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795938301.252786);
INSERT INTO public.events VALUES (37, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 13, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 14.724285714285713, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}, "error": null}', 1795938301.300739);
INSERT INTO public.events VALUES (38, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 14, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 13.152857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}, "error": null}', 1795938301.338111);
INSERT INTO public.events VALUES (39, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 15, "text": "evaluation", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 11.895714285714286, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}, "error": null}', 1795938301.387598);
INSERT INTO public.events VALUES (40, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 16, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 9.067142857142857, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795938301.437569);
INSERT INTO public.events VALUES (41, '01a22643b13cf6e2833208bda06d1281', 'trial', '{"number": 17, "text": "evaluation", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.11000000000000001, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795938301.485592);
INSERT INTO public.events VALUES (42, '01a22643b13cf6e2833208bda06d1281', 'state', '{"state": "COMPLETE", "error": null}', 1795938301.4967);
INSERT INTO public.events VALUES (43, '01a22643b6441c3bf4299b85357d7cd8', 'state', '{"state": "WAITING"}', 1795938301.510135);
INSERT INTO public.events VALUES (44, '01a22643b6441c3bf4299b85357d7cd8', 'state', '{"state": "RUNNING"}', 1795938301.540457);
INSERT INTO public.events VALUES (45, '01a22643b6441c3bf4299b85357d7cd8', 'stage', '{"stage": "estimate", "done": 0, "total": 1}', 1795938301.562419);
INSERT INTO public.events VALUES (46, '01a22643b6441c3bf4299b85357d7cd8', 'proposed', '{"number": 0, "text": "calibration", "origin": "uniform"}', 1795938301.592975);
INSERT INTO public.events VALUES (47, '01a22643b6441c3bf4299b85357d7cd8', 'proposed', '{"number": 1, "text": "calibration", "origin": "uniform"}', 1795938301.601964);
INSERT INTO public.events VALUES (48, '01a22643b6441c3bf4299b85357d7cd8', 'proposed', '{"number": 2, "text": "calibration", "origin": "uniform"}', 1795938301.61226);
INSERT INTO public.events VALUES (49, '01a22643b6441c3bf4299b85357d7cd8', 'stage', '{"stage": "search", "done": 0, "total": 12}', 1795938301.614313);
INSERT INTO public.events VALUES (50, '01a22643b6441c3bf4299b85357d7cd8', 'trial', '{"number": 0, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}, "error": null}', 1795938301.651532);
INSERT INTO public.events VALUES (51, '01a22643b6441c3bf4299b85357d7cd8', 'trial', '{"number": 1, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}, "error": null}', 1795938301.684665);
INSERT INTO public.events VALUES (52, '01a22643b6441c3bf4299b85357d7cd8', 'trial', '{"number": 2, "text": "calibration", "origin": "uniform", "state": "COMPLETE", "values": {"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}, "error": null}', 1795938301.720483);
INSERT INTO public.events VALUES (53, '01a22643b6441c3bf4299b85357d7cd8', 'proposed', '{"number": 3, "text": "calibration", "origin": "sweep"}', 1795938301.766211);
INSERT INTO public.events VALUES (54, '01a22643b6441c3bf4299b85357d7cd8', 'trial', '{"number": 3, "text": "calibration", "origin": "sweep", "state": "COMPLETE", "values": {"kl": 15.385714285714284, "bits": 2.8333333333333335, "bits_per_weight": 2.8333333333333335, "bytes": 2833.3333333333335, "seconds": 0.1}, "error": null}', 1795938301.808989);
INSERT INTO public.events VALUES (55, '01a22643b6441c3bf4299b85357d7cd8', 'proposed', '{"number": 4, "text": "calibration", "origin": "sweep"}', 1795938301.866269);
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
INSERT INTO public.studies VALUES ('01a22643b13cf6e2833208bda06d1281', 'anna', '{
  "model": "org/model",
  "budget": {
    "value": 4.5,
    "unit": "bpw"
  },
  "calibration": {
    "source": "Salesforce/wikitext:wikitext-2-raw-v1:train",
    "n_sequences": 16,
    "sequence_length": 512
  },
  "evaluation": {
    "source": "Salesforce/wikitext:wikitext-2-raw-v1:test",
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
}', 'COMPLETE', 'evaluate', 6, 6, true, 'cpu', '21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', NULL, 1795938300.228729, 1795938300.271994, 1795938301.496203);
INSERT INTO public.studies VALUES ('01a22643b6441c3bf4299b85357d7cd8', 'anna', '{
  "model": "org/model",
  "budget": {
    "value": 4.5,
    "unit": "bpw"
  },
  "calibration": {
    "source": "Salesforce/wikitext:wikitext-2-raw-v1:train",
    "n_sequences": 16,
    "sequence_length": 512
  },
  "evaluation": {
    "source": "Salesforce/wikitext:wikitext-2-raw-v1:test",
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
}', 'RUNNING', 'search', 4, 12, false, 'cpu', '21f25f6679f673b170183113eb30c6a27591f82b5ed53eb4114dd5b7778212a5', NULL, 1795938301.509225, 1795938301.539788, NULL);
INSERT INTO public.tasks VALUES (1, '01a22643b13cf6e2833208bda06d1281', 'prepare', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.234914, 1795938300.262251, 1795938300.28093, NULL);
INSERT INTO public.tasks VALUES (2, '01a22643b13cf6e2833208bda06d1281', 'estimate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.291951, 1795938300.306063, 1795938300.312773, NULL);
INSERT INTO public.tasks VALUES (3, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.319516, 1795938300.342129, 1795938300.360757, NULL);
INSERT INTO public.tasks VALUES (4, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.325174, 1795938300.401336, 1795938300.416542, NULL);
INSERT INTO public.tasks VALUES (5, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.331894, 1795938300.424988, 1795938300.433256, NULL);
INSERT INTO public.tasks VALUES (6, '01a22643b13cf6e2833208bda06d1281', 'propose', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.440735, 1795938300.445678, 1795938300.449446, NULL);
INSERT INTO public.tasks VALUES (7, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.45621, 1795938300.464756, 1795938300.472459, NULL);
INSERT INTO public.tasks VALUES (8, '01a22643b13cf6e2833208bda06d1281', 'propose', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.481756, 1795938300.487676, 1795938300.493208, NULL);
INSERT INTO public.tasks VALUES (9, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 4, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.497485, 1795938300.516235, 1795938300.535397, NULL);
INSERT INTO public.tasks VALUES (10, '01a22643b13cf6e2833208bda06d1281', 'propose', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.545622, 1795938300.554721, 1795938300.561708, NULL);
INSERT INTO public.tasks VALUES (11, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 5, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.568306, 1795938300.577197, 1795938300.585462, NULL);
INSERT INTO public.tasks VALUES (12, '01a22643b13cf6e2833208bda06d1281', 'propose', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.592748, 1795938300.598001, 1795938300.60589, NULL);
INSERT INTO public.tasks VALUES (13, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 6, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.611983, 1795938300.622407, 1795938300.631959, NULL);
INSERT INTO public.tasks VALUES (14, '01a22643b13cf6e2833208bda06d1281', 'propose', 4, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.640916, 1795938300.645867, 1795938300.657508, NULL);
INSERT INTO public.tasks VALUES (15, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 7, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.675923, 1795938300.697233, 1795938300.713631, NULL);
INSERT INTO public.tasks VALUES (16, '01a22643b13cf6e2833208bda06d1281', 'propose', 5, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.734611, 1795938300.745382, 1795938300.764693, NULL);
INSERT INTO public.tasks VALUES (17, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 8, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.775977, 1795938300.797474, 1795938300.812826, NULL);
INSERT INTO public.tasks VALUES (18, '01a22643b13cf6e2833208bda06d1281', 'propose', 6, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.827626, 1795938300.845424, 1795938300.858039, NULL);
INSERT INTO public.tasks VALUES (19, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 9, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.864262, 1795938300.882618, 1795938300.896393, NULL);
INSERT INTO public.tasks VALUES (20, '01a22643b13cf6e2833208bda06d1281', 'propose', 7, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.915434, 1795938300.933249, 1795938300.945929, NULL);
INSERT INTO public.tasks VALUES (21, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 10, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938300.956382, 1795938300.965879, 1795938300.99249, NULL);
INSERT INTO public.tasks VALUES (22, '01a22643b13cf6e2833208bda06d1281', 'propose', 8, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.001654, 1795938301.014845, 1795938301.026549, NULL);
INSERT INTO public.tasks VALUES (23, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 11, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.037922, 1795938301.064163, 1795938301.076924, NULL);
INSERT INTO public.tasks VALUES (24, '01a22643b13cf6e2833208bda06d1281', 'propose', 9, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.096401, 1795938301.112967, 1795938301.125987, NULL);
INSERT INTO public.tasks VALUES (25, '01a22643b13cf6e2833208bda06d1281', 'finalists', 12, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.137875, 1795938301.150435, 1795938301.160402, NULL);
INSERT INTO public.tasks VALUES (26, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 12, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.166039, 1795938301.233389, 1795938301.249483, NULL);
INSERT INTO public.tasks VALUES (27, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 13, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.18257, 1795938301.277938, 1795938301.294966, NULL);
INSERT INTO public.tasks VALUES (28, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 14, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.186431, 1795938301.307575, 1795938301.336789, NULL);
INSERT INTO public.tasks VALUES (29, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 15, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.192319, 1795938301.360631, 1795938301.383472, NULL);
INSERT INTO public.tasks VALUES (30, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 16, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.199823, 1795938301.408436, 1795938301.427569, NULL);
INSERT INTO public.tasks VALUES (31, '01a22643b13cf6e2833208bda06d1281', 'evaluate', 17, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.211589, 1795938301.465376, 1795938301.484545, NULL);
INSERT INTO public.tasks VALUES (32, '01a22643b6441c3bf4299b85357d7cd8', 'prepare', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.516793, 1795938301.531765, 1795938301.548678, NULL);
INSERT INTO public.tasks VALUES (33, '01a22643b6441c3bf4299b85357d7cd8', 'estimate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.560395, 1795938301.573285, 1795938301.581633, NULL);
INSERT INTO public.tasks VALUES (34, '01a22643b6441c3bf4299b85357d7cd8', 'evaluate', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.592539, 1795938301.626325, 1795938301.650252, NULL);
INSERT INTO public.tasks VALUES (35, '01a22643b6441c3bf4299b85357d7cd8', 'evaluate', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.601564, 1795938301.662688, 1795938301.683329, NULL);
INSERT INTO public.tasks VALUES (36, '01a22643b6441c3bf4299b85357d7cd8', 'evaluate', 2, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.611862, 1795938301.707182, 1795938301.715449, NULL);
INSERT INTO public.tasks VALUES (37, '01a22643b6441c3bf4299b85357d7cd8', 'propose', 0, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.729376, 1795938301.741101, 1795938301.753047, NULL);
INSERT INTO public.tasks VALUES (38, '01a22643b6441c3bf4299b85357d7cd8', 'evaluate', 3, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.765703, 1795938301.785421, 1795938301.80034, NULL);
INSERT INTO public.tasks VALUES (39, '01a22643b6441c3bf4299b85357d7cd8', 'propose', 1, 'cpu', 'COMPLETE', 1, 1, 'w', NULL, NULL, 1795938301.822602, 1795938301.834874, 1795938301.852579, NULL);
INSERT INTO public.tasks VALUES (40, '01a22643b6441c3bf4299b85357d7cd8', 'evaluate', 4, 'cpu', 'WAITING', 0, 0, NULL, NULL, NULL, 1795938301.865709, NULL, NULL, NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 0, 'calibration', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 1, 'calibration', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 2, 'calibration', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 3, 'calibration', 0, 'sweep', 't', '\x010000000002', '4b6649f7641ad148b6213cf3abd9fb708c0c9626484155625eed4aa1ff88b4c3', 'COMPLETE', '{"kl": 11.957142857142856, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 4, 'calibration', 1, 'sweep', 't', '\x020000000000', '398f405104434c20ada5bd33b56136ca43283bffcd2ee9533cbc36b73b0edc47', 'COMPLETE', '{"kl": 14.385714285714284, "bits": 3.5, "bits_per_weight": 3.5, "bytes": 3500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 5, 'calibration', 2, 'sweep', 't', '\x000100000001', '74cd085109408afe146472613c09c1565e765f1ebb422e0a77addb2fe61919a6', 'COMPLETE', '{"kl": 13.528571428571427, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 6, 'calibration', 3, 'sweep', 't', '\x010100000002', 'fb439d314446740682e272ca868d83749609eb977367e1e13a44a5574d80db51', 'COMPLETE', '{"kl": 10.814285714285713, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 7, 'calibration', 4, 'sweep', 't', '\x020100000000', 'b5bf6513cecf38e86914bf0252fdbc5ed7192e2a0f17c6153613e77912733411', 'COMPLETE', '{"kl": 13.242857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 8, 'calibration', 5, 'sweep', 't', '\x000200000001', 'cd8472c443113328692ea7e6b19dac5b4ad8c9371ab5e73488d7cc457f76f727', 'COMPLETE', '{"kl": 12.385714285714284, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 9, 'calibration', 6, 'sweep', 't', '\x010200000002', 'ad122c10decbbc035ef142f7fd75b83604b46862aaf72be68963d35ed29a08bf', 'COMPLETE', '{"kl": 9.67142857142857, "bits": 4.833333333333333, "bits_per_weight": 4.833333333333333, "bytes": 4833.333333333333, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 10, 'calibration', 7, 'sweep', 't', '\x020200000000', '5febe518d9e64b3a64b3e128d01f0f2e2ba91c30335493d222d0664ceff60df3', 'COMPLETE', '{"kl": 12.1, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 11, 'calibration', 8, 'sweep', 't', '\x000001000001', '40a3c89de48df6ca5c874beff66ab9e2182239f5bcbc1907ac0a84e6c22f8e89', 'COMPLETE', '{"kl": 13.385714285714284, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 12, 'evaluation', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 18.024285714285718, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 13, 'evaluation', NULL, 'sweep', '', '\x000001000001', '40a3c89de48df6ca5c874beff66ab9e2182239f5bcbc1907ac0a84e6c22f8e89', 'COMPLETE', '{"kl": 14.724285714285713, "bits": 3.1666666666666665, "bits_per_weight": 3.1666666666666665, "bytes": 3166.6666666666665, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 14, 'evaluation', NULL, 'sweep', '', '\x010000000002', '4b6649f7641ad148b6213cf3abd9fb708c0c9626484155625eed4aa1ff88b4c3', 'COMPLETE', '{"kl": 13.152857142857142, "bits": 3.8333333333333335, "bits_per_weight": 3.8333333333333335, "bytes": 3833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 15, 'evaluation', NULL, 'sweep', '', '\x010100000002', 'fb439d314446740682e272ca868d83749609eb977367e1e13a44a5574d80db51', 'COMPLETE', '{"kl": 11.895714285714286, "bits": 4.166666666666667, "bits_per_weight": 4.166666666666667, "bytes": 4166.666666666667, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 16, 'evaluation', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 9.067142857142857, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b13cf6e2833208bda06d1281', 17, 'evaluation', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.11000000000000001, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b6441c3bf4299b85357d7cd8', 0, 'calibration', NULL, 'uniform', '', '\x000000000000', 'ed75dcd4d8479df949b244ebaa78291f457687c3a39312381967df407057e8e1', 'COMPLETE', '{"kl": 16.385714285714286, "bits": 2.5, "bits_per_weight": 2.5, "bytes": 2500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b6441c3bf4299b85357d7cd8', 1, 'calibration', NULL, 'uniform', '', '\x010101010101', '041c0159e59b71e0213c621195f3da51392afee0ec51e0d328ae1a541db66945', 'COMPLETE', '{"kl": 8.242857142857142, "bits": 4.5, "bits_per_weight": 4.5, "bytes": 4500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b6441c3bf4299b85357d7cd8', 2, 'calibration', NULL, 'uniform', '', '\x020202020202', '80bdde5f7d789c7b69f1391233ca8734d856f15e31a16c7694c0b6df68e95978', 'COMPLETE', '{"kl": 0.1, "bits": 8.5, "bits_per_weight": 8.5, "bytes": 8500.0, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b6441c3bf4299b85357d7cd8', 3, 'calibration', 0, 'sweep', 't', '\x010000000000', '4077673d65dd66898c1bc8c56c2d89bbdb341db55f7416a4b4ac29e392230720', 'COMPLETE', '{"kl": 15.385714285714284, "bits": 2.8333333333333335, "bits_per_weight": 2.8333333333333335, "bytes": 2833.3333333333335, "seconds": 0.1}', NULL);
INSERT INTO public.trials VALUES ('01a22643b6441c3bf4299b85357d7cd8', 4, 'calibration', 1, 'sweep', 't', '\x020000000001', 'cdd7d9ce39a1f0befb41c3da0097301e85ed3d7ddf982e60c830b9dbe1db9403', 'RUNNING', '{}', NULL);
SELECT pg_catalog.setval('public.audit_id_seq', 1, false);
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
