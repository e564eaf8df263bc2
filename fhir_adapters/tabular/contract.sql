-- The standard views of Yiqiao as tables that a DBA can create as they stand on PostgreSQL, Oracle, SQL Server, MySQL and SQLite:
-- every column is text or VARCHAR, times may be text in any form of docs/view-contract.md. Two ways to install:
--   1. replace each CREATE TABLE by CREATE VIEW ... AS SELECT over the tables of the HIS (see views_example.sql), or
--   2. create these tables in a schema of their own and let a job of the HIS fill them.
-- Then: an account that may SELECT these three objects and nothing else.

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
  row_key              VARCHAR(64) NOT NULL PRIMARY KEY,
  updated_at           VARCHAR(32) NOT NULL,
  visit_no             VARCHAR(64) NOT NULL,
  patient_no           VARCHAR(64) NOT NULL,
  assigning_authority  VARCHAR(64),
  visit_class          VARCHAR(16) NOT NULL,
  status               VARCHAR(32),
  start_at             VARCHAR(32),
  end_at               VARCHAR(32),
  facility             VARCHAR(64),
  dept_code            VARCHAR(64),
  dept_name            VARCHAR(200),
  ward_code            VARCHAR(64),
  ward_name            VARCHAR(200),
  room_no              VARCHAR(32),
  bed_no               VARCHAR(32),
  attending_code       VARCHAR(64),
  attending_name       VARCHAR(200),
  admission_type       VARCHAR(16),
  admit_source         VARCHAR(16),
  discharge_disposition VARCHAR(16),
  diagnosis_code       VARCHAR(32),
  diagnosis_name       VARCHAR(400),
  reason               VARCHAR(2000)
);

CREATE INDEX V_IOP_ENCOUNTER_WM ON V_IOP_ENCOUNTER (updated_at, row_key);

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
