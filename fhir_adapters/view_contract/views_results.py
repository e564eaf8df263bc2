"""The standard views of results: laboratory, examinations, vital signs."""

from fhir_adapters.view_contract.columns import view

LAB = view(
    "V_IOP_LAB",
    "One row per result of a laboratory report 检验结果",
    ("report_no",),
    """
report_no*         | code | Number of the report, unique in the hospital 报告单号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
item_count         | code | Rows that the report has in this view 结果项数
request_no         | code | Number of the request, as in V_IOP_ORDER 申请单号
panel_code         | code | What was ordered 检验项目代码
panel_name         | text | 检验项目名称
report_status      | code | HL7 0123 (F final, P preliminary, C corrected, X cancelled), default F 报告状态
reported_at        | time | 报告时间
specimen_no        | code | 标本号
specimen_type      | code | HL7 0487 code or name 标本类型
collected_at       | time | 采集时间
received_at        | time | 接收时间
performer_code     | code | Who reports 报告者工号
performer_name     | text | 报告者姓名
item_code*         | code | Local code of the result item 结果项代码
item_name          | text | 结果项名称
item_loinc         | code | LOINC, where known
sub_id             | code | Tells rows of one item apart, e.g. the isolate 子序号
result             | text | As reported: number, <, >, text 结果
unit               | text | 单位
range_low          | code | 参考下限
range_high         | code | 参考上限
range_text         | text | 参考范围
flag               | code | HL7 0078 or ↑ ↓ 异常标志
item_status        | code | HL7 0085, default F 结果状态
observed_at        | time | When the value was true, default collected_at 检测时间
comment_text       | text | 备注
""",
)

EXAM = view(
    "V_IOP_EXAM",
    "One row per report of an examination: imaging, ultrasound, ECG, endoscopy, pathology 检查报告",
    ("report_no",),
    """
report_no*         | code | Number of the report, unique in the hospital 报告单号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
request_no         | code | Number of the request, as in V_IOP_ORDER 申请单号
exam_class         | code | HL7 0074 (RAD CT RUS EC …) or 放射 CT 磁共振 超声 心电 内镜 病理 检查类别
item_code          | code | What was examined 检查项目代码
item_name          | text | 检查项目名称
body_site          | text | 检查部位
report_status      | code | HL7 0123, default F 报告状态
examined_at        | time | 检查时间
reported_at        | time | 报告时间
performer_code     | code | Who examined or reports 检查/报告医师工号
performer_name     | text | 检查/报告医师姓名
verifier_code      | code | Who verified the report 审核医师工号
verifier_name      | text | 审核医师姓名
findings           | text | 检查所见
conclusion         | text | 检查结论
flag               | code | HL7 0078, or 阳性 阴性 结果标志
study_uid          | code | DICOM study instance UID 影像检查UID
accession_no       | code | 检查流水号
comment_text       | text | 备注
""",
)

VITAL = view(
    "V_IOP_VITAL",
    "One row per vital sign measured 生命体征",
    ("patient_no", "visit_no", "measured_at"),
    """
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
record_no          | code | Number of the measurement in its system; without it patient, item and time name it 记录号
measured_at*       | time | 测量时间
item_code*         | code | 体温 脉搏 呼吸 血压 血氧饱和度 身高 体重 …, T P R BP …, or a code of the site 项目代码
item_name          | text | 项目名称
item_loinc         | code | LOINC, where known
result             | text | Number, 120/80 for a blood pressure, or text 结果
unit               | text | 单位
method             | text | 腋温 口温 肛温 … 测量方式
flag               | code | HL7 0078 or ↑ ↓ 异常标志
item_status        | code | HL7 0085, default F 状态
performer_code     | code | Who measured 测量者工号
performer_name     | text | 测量者姓名
comment_text       | text | 备注
""",
)
