"""The standard views of care: orders, medicines, diagnoses, documents, critical values."""

from fhir_adapters.view_contract.columns import view

ORDER = view(
    "V_IOP_ORDER",
    "One row per order that is not of a medicine 医嘱/申请",
    ("order_no",),
    """
order_no*          | code | Number of the order, as in request_no of the reports 医嘱号/申请单号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
group_no           | code | Orders given together 组号
order_class        | code | 检验 检查 治疗 护理 手术 输血 膳食 会诊 …, code or name 医嘱类别
order_term         | code | 长期 临时 …, code or name 长期/临时
status             | code | FHIR request status, HL7 0038, or 新开 执行 暂停 停止 完成 作废 状态
priority           | code | HL7 0485 (S A R) or 急 普通 优先级
item_code          | code | 医嘱项目代码
item_name*         | text | 医嘱项目名称
ordered_at         | time | 开立时间
start_at           | time | 开始时间
stop_at            | time | 停止时间
frequency          | code | qd bid tid q8h …, code or name 频次
quantity           | code | 数量
quantity_unit      | text | 数量单位
body_site          | text | 部位
requester_code     | code | Who ordered 开立医师工号
requester_name     | text | 开立医师姓名
performer_dept_code| code | Department that carries it out 执行科室代码
performer_dept_name| text | 执行科室名称
reason             | text | 申请原因/临床诊断
instruction        | text | For the patient 嘱托
comment_text       | text | 备注
""",
)

MEDICATION = view(
    "V_IOP_MEDICATION",
    "One row per order of a medicine; with administration_no one row per administration of it 用药医嘱及给药",
    ("order_no",),
    """
order_no*          | code | Number of the order or of the line of a prescription 医嘱号/处方明细号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
prescription_no    | code | Prescription or group of orders 处方号/组号
order_kind         | code | 长期 临时 门诊 出院带药 …, code or name 医嘱类型
status             | code | FHIR status of a MedicationRequest, HL7 0038, or 新开 执行 暂停 停止 完成 作废 状态
priority           | code | HL7 0485 (S A R) or 急 普通 优先级
drug_code          | code | Local code 药品代码
drug_nhsa_code     | code | 医保药品代码
drug_name*         | text | 药品名称
drug_spec          | text | 规格
drug_form          | text | 剂型
dose               | code | Of one administration 单次剂量
dose_unit          | text | 剂量单位
route              | code | Code or name 给药途径
frequency          | code | qd bid tid q8h …, code or name 频次
days               | code | 天数
quantity           | code | Total 总量
quantity_unit      | text | 总量单位
ordered_at         | time | 开立时间
start_at           | time | 开始时间
stop_at            | time | 停止时间
requester_code     | code | Who ordered 开立医师工号
requester_name     | text | 开立医师姓名
instruction        | text | 用法/嘱托
reason             | text | 用药原因
comment_text       | text | 备注
administration_no  | code | Number of one administration 给药/执行记录号
administered_at    | time | 给药开始时间
administered_until | time | 给药结束时间
administration_status | code | FHIR status of a MedicationAdministration, or 已执行 执行中 未执行 取消 执行状态
administered_dose  | code | Given, where it differs from dose 实际剂量
administrator_code | code | Who gave it 执行者工号
administrator_name | text | 执行者姓名
""",
)

DIAGNOSIS = view(
    "V_IOP_DIAGNOSIS",
    "One row per diagnosis of a visit 诊断",
    ("patient_no", "visit_no"),
    """
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
diagnosis_kind     | code | HL7 0052 (A W F) or 门诊 入院 出院 主要 其他 术前 术后 … 诊断类型
seq_no             | code | Place among the diagnoses, 1 the main one 序号
diagnosis_code     | code | ICD-10, the Chinese edition 诊断编码
diagnosis_name*    | text | 诊断名称
certainty          | code | 确诊 疑似, or a code of FHIR's condition-ver-status 诊断确定性
outcome            | code | 治愈 好转 未愈 死亡 其他, or a code of FHIR's condition-clinical 转归
onset_at           | time | 发病时间
diagnosed_at       | time | 诊断时间
doctor_code        | code | Who made it 诊断医师工号
doctor_name        | text | 诊断医师姓名
active_flag        | code | 0: entered in error 有效标志
comment_text       | text | 备注
""",
)

DOCUMENT = view(
    "V_IOP_DOCUMENT",
    "One row per document of the medical record 病历文书",
    ("document_no",),
    """
document_no*       | code | Number of the document, unique in the hospital 文书号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
type_code          | code | C0001 … C0053 of WS/T 500, or a code of the site 文书类型代码
type_name          | text | 文书类型名称
title              | text | 标题
status             | code | 1 or 完成 final, 0 or 草稿 preliminary, 9 or 作废 entered in error; default final 状态
written_at         | time | 书写时间
signed_at          | time | 签名时间
author_code        | code | 书写者工号
author_name        | text | 书写者姓名
dept_code          | code | 科室代码
dept_name          | text | 科室名称
content_type       | code | MIME type, or TXT HTML XML PDF RTF JPG PNG; default text 内容格式
content            | content | Text, or the file's bytes (BLOB) 内容
version_no         | code | Version in the source 版本
replaces_no        | code | document_no of the document that this one replaces 替代文书号
""",
)

CRITICAL = view(
    "V_IOP_CRITICAL",
    "One row per critical value, from its report to its handling 危急值",
    ("critical_no",),
    """
critical_no*       | code | Number of the critical value, unique in the hospital 危急值编号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
report_no          | code | As in V_IOP_LAB or V_IOP_EXAM 报告单号
item_code          | code | 项目代码
item_name*         | text | 项目名称
result             | text | 结果
unit               | text | 单位
range_text         | text | 参考范围
flag               | code | HL7 0078 or ↑↑ ↓↓ 异常标志
found_at           | time | 发现时间
notifier_code      | code | Who reported it 报告者工号
notifier_name      | text | 报告者姓名
notified_at        | time | 报告时间
receiver_code      | code | To whom 接收者工号
receiver_name      | text | 接收者姓名
receiver_dept_code | code | 接收科室代码
receiver_dept_name | text | 接收科室名称
confirmed_at       | time | 确认时间
confirmer_code     | code | 确认者工号
confirmer_name     | text | 确认者姓名
handled_at         | time | 处理时间
handler_code       | code | 处理者工号
handler_name       | text | 处理者姓名
action_text        | text | 处理措施
""",
)
