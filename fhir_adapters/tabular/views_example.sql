-- Example: the three views over tables of the 军卫一号 family (names of tables and columns as commonly found; adapt the right-hand
-- sides, keep the left-hand names). Plain SQL: runs on Oracle, PostgreSQL, SQL Server, MySQL and SQLite.
-- UPDATED_TIME stands for whatever the site keeps as last change; without such a column use the latest business time of the row.

CREATE VIEW V_IOP_PATIENT AS
SELECT p.PATIENT_ID             AS row_key,
       p.UPDATED_TIME           AS updated_at,
       p.PATIENT_ID             AS patient_no,
       p.NAME                   AS name,
       p.SEX                    AS sex,
       p.DATE_OF_BIRTH          AS birth_date,
       '01'                     AS id_type,
       p.ID_NO                  AS id_no,
       p.NATION                 AS nation,
       p.PHONE_NUMBER_HOME      AS phone,
       p.MAILING_ADDRESS        AS address,
       p.ZIP_CODE               AS postal_code,
       p.NEXT_OF_KIN            AS contact_name,
       p.RELATIONSHIP           AS contact_relation,
       p.NEXT_OF_KIN_PHONE      AS contact_phone
  FROM PAT_MASTER_INDEX p;

-- The visit key is composite there: patient number and visit count make one number.
CREATE VIEW V_IOP_ENCOUNTER AS
SELECT v.PATIENT_ID || '_' || v.VISIT_ID AS row_key,
       v.UPDATED_TIME                    AS updated_at,
       v.PATIENT_ID || '_' || v.VISIT_ID AS visit_no,
       v.PATIENT_ID                      AS patient_no,
       'I'                               AS visit_class,
       v.ADMISSION_DATE_TIME             AS start_at,
       v.DISCHARGE_DATE_TIME             AS end_at,
       COALESCE(h.DEPT_CODE, v.DEPT_DISCHARGE_FROM) AS dept_code,
       d.DEPT_NAME                       AS dept_name,
       h.WARD_CODE                       AS ward_code,
       h.BED_NO                          AS bed_no,
       v.ATTENDING_DOCTOR                AS attending_name
  FROM PAT_VISIT v
  LEFT JOIN PATS_IN_HOSPITAL h ON h.PATIENT_ID = v.PATIENT_ID AND h.VISIT_ID = v.VISIT_ID
  LEFT JOIN DEPT_DICT d        ON d.DEPT_CODE = COALESCE(h.DEPT_CODE, v.DEPT_DISCHARGE_FROM);

-- updated_at is the report's, for every row of it: a change in one result brings the whole report again.
CREATE VIEW V_IOP_LAB AS
SELECT r.TEST_NO || '_' || r.ITEM_NO || '_' || r.PRINT_ORDER AS row_key,
       m.UPDATED_TIME           AS updated_at,
       m.TEST_NO                AS report_no,
       m.PATIENT_ID             AS patient_no,
       m.PATIENT_ID || '_' || m.VISIT_ID AS visit_no,
       m.SPECIMEN               AS specimen_type,
       m.SPCM_RECEIVED_DATE_TIME AS received_at,
       m.RESULTS_RPT_DATE_TIME  AS reported_at,
       m.TRANSCRIPTIONIST       AS performer_name,
       r.REPORT_ITEM_CODE       AS item_code,
       r.REPORT_ITEM_NAME       AS item_name,
       r.RESULT                 AS result,
       r.UNITS                  AS unit,
       r.PRINT_CONTEXT          AS range_text,
       r.ABNORMAL_INDICATOR     AS flag,
       r.RESULT_DATE_TIME       AS observed_at
  FROM LAB_TEST_MASTER m
  JOIN LAB_RESULT r ON r.TEST_NO = m.TEST_NO;
