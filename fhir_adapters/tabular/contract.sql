-- The standard views of Yiqiao as tables that a DBA can create as they stand on PostgreSQL, Oracle, SQL Server, MySQL and SQLite:
-- every column is text, times may be text in any form of docs/view-contract.md. Three ways to install:
--   1. replace each CREATE TABLE by CREATE VIEW ... AS SELECT over the tables of the HIS (see views_example.sql), or
--   2. create these tables in a schema of their own and let a job of the HIS fill them, or
--   3. create nothing and give the node a source profile that maps the HIS's own tables (docs/his-databases.md).
-- Then: an account that may SELECT these objects and nothing else. A site installs those views that it has data for.
-- SQL Server without a Chinese collation: write NVARCHAR for VARCHAR. V_IOP_DOCUMENT.content is better a CLOB, TEXT, LONGTEXT or BLOB.

CREATE TABLE V_IOP_PATIENT (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  assigning_authority  VARCHAR(64),
  name                 VARCHAR(200),
  sex                  VARCHAR(16),
  birth_date           VARCHAR(32),
  id_type              VARCHAR(8),
  id_no                VARCHAR(64),
  health_card_no       VARCHAR(64),
  insurance_no         VARCHAR(64),
  nation               VARCHAR(32),
  marital_status       VARCHAR(16),
  phone                VARCHAR(64),
  mobile               VARCHAR(64),
  province             VARCHAR(100),
  city                 VARCHAR(100),
  county               VARCHAR(100),
  address              VARCHAR(400),
  postal_code          VARCHAR(16),
  contact_name         VARCHAR(200),
  contact_relation     VARCHAR(32),
  contact_phone        VARCHAR(64),
  deceased_at          VARCHAR(32),
  deceased_flag        VARCHAR(8),
  active_flag          VARCHAR(8),
  merged_into_no       VARCHAR(64)
);

CREATE INDEX V_IOP_PATIENT_WM ON V_IOP_PATIENT (updated_at, row_key);

CREATE TABLE V_IOP_ENCOUNTER (
  row_key                VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at             VARCHAR(32) NOT NULL,
  visit_no               VARCHAR(64) NOT NULL,
  patient_no             VARCHAR(64) NOT NULL,
  assigning_authority    VARCHAR(64),
  visit_class            VARCHAR(16) NOT NULL,
  status                 VARCHAR(32),
  start_at               VARCHAR(32),
  end_at                 VARCHAR(32),
  facility               VARCHAR(64),
  dept_code              VARCHAR(64),
  dept_name              VARCHAR(200),
  ward_code              VARCHAR(64),
  ward_name              VARCHAR(200),
  room_no                VARCHAR(32),
  bed_no                 VARCHAR(32),
  moved_at               VARCHAR(32),
  prior_ward_code        VARCHAR(64),
  prior_room_no          VARCHAR(64),
  prior_bed_no           VARCHAR(64),
  attending_code         VARCHAR(64),
  attending_name         VARCHAR(200),
  admission_type         VARCHAR(16),
  admit_source           VARCHAR(16),
  discharge_disposition  VARCHAR(16),
  diagnosis_code         VARCHAR(32),
  diagnosis_name         VARCHAR(400),
  reason                 VARCHAR(2000)
);

CREATE INDEX V_IOP_ENCOUNTER_WM ON V_IOP_ENCOUNTER (updated_at, row_key);

CREATE TABLE V_IOP_BED (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  ward_code            VARCHAR(64) NOT NULL,
  bed_no               VARCHAR(32) NOT NULL,
  facility             VARCHAR(64),
  ward_name            VARCHAR(200),
  room_no              VARCHAR(32),
  assigning_authority  VARCHAR(64),
  bed_status           VARCHAR(64),
  bed_kind             VARCHAR(64),
  sex_limit            VARCHAR(16),
  dept_code            VARCHAR(64),
  dept_name            VARCHAR(200),
  lent_dept_code       VARCHAR(64),
  lent_dept_name       VARCHAR(200),
  description          VARCHAR(2000),
  active_flag          VARCHAR(8)
);

CREATE INDEX V_IOP_BED_WM ON V_IOP_BED (updated_at, row_key);

CREATE TABLE V_IOP_ORDER (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  order_no             VARCHAR(64) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  group_no             VARCHAR(64),
  order_class          VARCHAR(64),
  order_term           VARCHAR(64),
  status               VARCHAR(32),
  priority             VARCHAR(64),
  item_code            VARCHAR(64),
  item_name            VARCHAR(200) NOT NULL,
  ordered_at           VARCHAR(32),
  start_at             VARCHAR(32),
  stop_at              VARCHAR(32),
  frequency            VARCHAR(64),
  quantity             VARCHAR(64),
  quantity_unit        VARCHAR(64),
  body_site            VARCHAR(200),
  requester_code       VARCHAR(64),
  requester_name       VARCHAR(200),
  performer_dept_code  VARCHAR(64),
  performer_dept_name  VARCHAR(200),
  reason               VARCHAR(2000),
  instruction          VARCHAR(2000),
  comment_text         VARCHAR(2000)
);

CREATE INDEX V_IOP_ORDER_WM ON V_IOP_ORDER (updated_at, row_key);

CREATE TABLE V_IOP_MEDICATION (
  row_key                VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at             VARCHAR(32) NOT NULL,
  order_no               VARCHAR(64) NOT NULL,
  patient_no             VARCHAR(64) NOT NULL,
  visit_no               VARCHAR(64),
  assigning_authority    VARCHAR(64),
  prescription_no        VARCHAR(64),
  order_kind             VARCHAR(64),
  status                 VARCHAR(32),
  priority               VARCHAR(64),
  drug_code              VARCHAR(64),
  drug_nhsa_code         VARCHAR(64),
  drug_name              VARCHAR(200) NOT NULL,
  drug_spec              VARCHAR(200),
  drug_form              VARCHAR(200),
  dose                   VARCHAR(64),
  dose_unit              VARCHAR(64),
  route                  VARCHAR(64),
  frequency              VARCHAR(64),
  days                   VARCHAR(16),
  quantity               VARCHAR(64),
  quantity_unit          VARCHAR(64),
  ordered_at             VARCHAR(32),
  start_at               VARCHAR(32),
  stop_at                VARCHAR(32),
  requester_code         VARCHAR(64),
  requester_name         VARCHAR(200),
  instruction            VARCHAR(2000),
  reason                 VARCHAR(2000),
  comment_text           VARCHAR(2000),
  administration_no      VARCHAR(64),
  administered_at        VARCHAR(32),
  administered_until     VARCHAR(32),
  administration_status  VARCHAR(64),
  administered_dose      VARCHAR(64),
  administrator_code     VARCHAR(64),
  administrator_name     VARCHAR(200)
);

CREATE INDEX V_IOP_MEDICATION_WM ON V_IOP_MEDICATION (updated_at, row_key);

CREATE TABLE V_IOP_LAB (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  report_no            VARCHAR(64) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  item_count           VARCHAR(8),
  request_no           VARCHAR(64),
  panel_code           VARCHAR(64),
  panel_name           VARCHAR(200),
  report_status        VARCHAR(8),
  reported_at          VARCHAR(32),
  specimen_no          VARCHAR(64),
  specimen_type        VARCHAR(64),
  collected_at         VARCHAR(32),
  received_at          VARCHAR(32),
  performer_code       VARCHAR(64),
  performer_name       VARCHAR(200),
  item_code            VARCHAR(64) NOT NULL,
  item_name            VARCHAR(200),
  item_loinc           VARCHAR(16),
  sub_id               VARCHAR(32),
  result               VARCHAR(2000),
  unit                 VARCHAR(64),
  range_low            VARCHAR(32),
  range_high           VARCHAR(32),
  range_text           VARCHAR(400),
  flag                 VARCHAR(16),
  item_status          VARCHAR(8),
  observed_at          VARCHAR(32),
  comment_text         VARCHAR(2000)
);

CREATE INDEX V_IOP_LAB_WM ON V_IOP_LAB (updated_at, report_no, row_key);

CREATE TABLE V_IOP_EXAM (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  report_no            VARCHAR(64) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  request_no           VARCHAR(64),
  exam_class           VARCHAR(64),
  item_code            VARCHAR(64),
  item_name            VARCHAR(200),
  body_site            VARCHAR(200),
  report_status        VARCHAR(8),
  examined_at          VARCHAR(32),
  reported_at          VARCHAR(32),
  performer_code       VARCHAR(64),
  performer_name       VARCHAR(200),
  verifier_code        VARCHAR(64),
  verifier_name        VARCHAR(200),
  findings             VARCHAR(4000),
  conclusion           VARCHAR(4000),
  flag                 VARCHAR(16),
  study_uid            VARCHAR(64),
  accession_no         VARCHAR(64),
  comment_text         VARCHAR(2000)
);

CREATE INDEX V_IOP_EXAM_WM ON V_IOP_EXAM (updated_at, row_key);

CREATE TABLE V_IOP_VITAL (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  record_no            VARCHAR(64),
  measured_at          VARCHAR(32) NOT NULL,
  item_code            VARCHAR(64) NOT NULL,
  item_name            VARCHAR(200),
  item_loinc           VARCHAR(16),
  result               VARCHAR(2000),
  unit                 VARCHAR(64),
  method               VARCHAR(200),
  flag                 VARCHAR(16),
  item_status          VARCHAR(8),
  performer_code       VARCHAR(64),
  performer_name       VARCHAR(200),
  comment_text         VARCHAR(2000)
);

CREATE INDEX V_IOP_VITAL_WM ON V_IOP_VITAL (updated_at, row_key);

CREATE TABLE V_IOP_DIAGNOSIS (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  diagnosis_kind       VARCHAR(64),
  seq_no               VARCHAR(16),
  diagnosis_code       VARCHAR(32),
  diagnosis_name       VARCHAR(400) NOT NULL,
  certainty            VARCHAR(64),
  outcome              VARCHAR(64),
  onset_at             VARCHAR(32),
  diagnosed_at         VARCHAR(32),
  doctor_code          VARCHAR(64),
  doctor_name          VARCHAR(200),
  active_flag          VARCHAR(8),
  comment_text         VARCHAR(2000)
);

CREATE INDEX V_IOP_DIAGNOSIS_WM ON V_IOP_DIAGNOSIS (updated_at, row_key);

CREATE TABLE V_IOP_DOCUMENT (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  document_no          VARCHAR(64) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  type_code            VARCHAR(64),
  type_name            VARCHAR(200),
  title                VARCHAR(200),
  status               VARCHAR(32),
  written_at           VARCHAR(32),
  signed_at            VARCHAR(32),
  author_code          VARCHAR(64),
  author_name          VARCHAR(200),
  dept_code            VARCHAR(64),
  dept_name            VARCHAR(200),
  content_type         VARCHAR(64),
  content              VARCHAR(4000),
  version_no           VARCHAR(64),
  replaces_no          VARCHAR(64)
);

CREATE INDEX V_IOP_DOCUMENT_WM ON V_IOP_DOCUMENT (updated_at, row_key);

CREATE TABLE V_IOP_CRITICAL (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  critical_no          VARCHAR(64) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  visit_no             VARCHAR(64),
  assigning_authority  VARCHAR(64),
  report_no            VARCHAR(64),
  item_code            VARCHAR(64),
  item_name            VARCHAR(200) NOT NULL,
  result               VARCHAR(2000),
  unit                 VARCHAR(64),
  range_text           VARCHAR(400),
  flag                 VARCHAR(16),
  found_at             VARCHAR(32),
  notifier_code        VARCHAR(64),
  notifier_name        VARCHAR(200),
  notified_at          VARCHAR(32),
  receiver_code        VARCHAR(64),
  receiver_name        VARCHAR(200),
  receiver_dept_code   VARCHAR(64),
  receiver_dept_name   VARCHAR(200),
  confirmed_at         VARCHAR(32),
  confirmer_code       VARCHAR(64),
  confirmer_name       VARCHAR(200),
  handled_at           VARCHAR(32),
  handler_code         VARCHAR(64),
  handler_name         VARCHAR(200),
  action_text          VARCHAR(2000)
);

CREATE INDEX V_IOP_CRITICAL_WM ON V_IOP_CRITICAL (updated_at, row_key);

CREATE TABLE V_IOP_STAFF (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  staff_no             VARCHAR(64) NOT NULL,
  name                 VARCHAR(200) NOT NULL,
  assigning_authority  VARCHAR(64),
  sex                  VARCHAR(16),
  birth_date           VARCHAR(32),
  role                 VARCHAR(64),
  title                VARCHAR(200),
  license_no           VARCHAR(64),
  specialty            VARCHAR(200),
  dept_code            VARCHAR(64),
  dept_name            VARCHAR(200),
  phone                VARCHAR(64),
  mobile               VARCHAR(64),
  start_at             VARCHAR(32),
  end_at               VARCHAR(32),
  active_flag          VARCHAR(8)
);

CREATE INDEX V_IOP_STAFF_WM ON V_IOP_STAFF (updated_at, row_key);

CREATE TABLE V_IOP_DEPARTMENT (
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  dept_code            VARCHAR(64) NOT NULL,
  dept_name            VARCHAR(200) NOT NULL,
  assigning_authority  VARCHAR(64),
  short_name           VARCHAR(200),
  parent_code          VARCHAR(64),
  dept_kind            VARCHAR(64),
  phone                VARCHAR(64),
  address              VARCHAR(400),
  active_flag          VARCHAR(8)
);

CREATE INDEX V_IOP_DEPARTMENT_WM ON V_IOP_DEPARTMENT (updated_at, row_key);
