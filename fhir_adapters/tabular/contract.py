"""The standard views: which columns a hospital's DBA gives us, and what each means.

docs/view-contract.md is the text for people, ``contract.sql`` the DDL; a test holds the three together. Column names
are matched without regard to case. A column that the contract does not know is reported once as "not-mapped".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Column:
    """One column: kind "text" (as it stands), "code" (number or code: full-width brought to ASCII) or "time"."""

    name: str
    kind: str
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """One view. ``key`` is the column that names the record; rows without their required columns are refused."""

    name: str
    meaning: str
    key: str
    columns: Mapping[str, Column]


def _view(name: str, meaning: str, key: str, table: str) -> View:
    columns: dict[str, Column] = {}
    for line in filter(str.strip, table.splitlines()):
        column, kind, text = (part.strip() for part in line.split("|"))
        required = column.endswith("*")
        column = column.rstrip("*")
        columns[column] = Column(column, kind, text, required)
    return View(name, meaning, key, MappingProxyType(columns))


_COMMON = """
row_key*           | code | Unique within the view and never reused 行唯一键
updated_at*        | time | Last change of anything in the row (in V_IOP_LAB: of anything in the report) 最后更新时间
"""

PATIENT = _view(
    "V_IOP_PATIENT",
    "One row per patient record 患者",
    "patient_no",
    _COMMON
    + """
patient_no*        | code | Number that the hospital gave the patient 患者号/病案号
assigning_authority| code | Who issued patient_no, when not the profile's default 发放机构
name               | text | Whole name 姓名
sex                | code | GB/T 2261.1 (0 1 2 9), M/F or 男/女 性别
birth_date         | time | Birth date 出生日期
id_type            | code | CV02.01.101, default 01 (resident identity card) 证件类型
id_no              | code | Number of that document 证件号码
health_card_no     | code | 居民健康卡号
insurance_no       | code | 医保个人编号
nation             | code | GB 3304 code or name 民族
marital_status     | code | GB/T 2261.2 code or name 婚姻状况
phone              | text | Telephone 电话
mobile             | text | Mobile telephone 手机
province           | text | 省
city               | text | 市
county             | text | 县/区
address            | text | Street and house; the whole address where the parts are not kept 地址
postal_code        | code | 邮编
contact_name       | text | Next of kin or contact 联系人姓名
contact_relation   | code | GB/T 4761 code or name 与患者关系
contact_phone      | text | 联系人电话
deceased_at        | time | Time of death 死亡时间
deceased_flag      | code | 1 dead, 0 alive; not needed with deceased_at 死亡标志
active_flag        | code | 1 in use (default), 0 not 有效标志
merged_into_no     | code | patient_no of the record that replaces this one 合并至
""",
)

ENCOUNTER = _view(
    "V_IOP_ENCOUNTER",
    "One row per visit, outpatient or inpatient 就诊",
    "visit_no",
    _COMMON
    + """
visit_no*          | code | Number of the visit, unique in the hospital 就诊号/住院号+次数
patient_no*        | code | As in V_IOP_PATIENT 患者号
assigning_authority| code | Who issued the two numbers, when not the profile's default 发放机构
visit_class*       | code | I O E P (HL7 0004), IMP AMB EMER, or 住院 门诊 急诊 就诊类别
status             | code | FHIR encounter status, 0 1 2 9 or 预约 在院 出院 作废; from the times when missing 状态
start_at           | time | Admission or registration 入院/挂号时间
end_at             | time | Discharge or end 出院/结束时间
facility           | code | Campus, where there are several 院区
dept_code          | code | Responsible department 科室代码
dept_name          | text | 科室名称
ward_code          | code | 病区代码
ward_name          | text | 病区名称
room_no            | code | 病房号
bed_no             | code | 床号
attending_code     | code | Attending physician 主治/接诊医师工号
attending_name     | text | 医师姓名
admission_type     | code | HL7 0007 入院类型
admit_source       | code | HL7 0023 入院来源
discharge_disposition | code | HL7 0112 离院方式
diagnosis_code     | code | ICD-10 of the main diagnosis 主要诊断编码
diagnosis_name     | text | 主要诊断名称
reason             | text | Chief complaint 主诉
""",
)

LAB = _view(
    "V_IOP_LAB",
    "One row per result of a laboratory report 检验结果",
    "report_no",
    _COMMON
    + """
report_no*         | code | Number of the report, unique in the hospital 报告单号
patient_no*        | code | As in V_IOP_PATIENT 患者号
visit_no           | code | As in V_IOP_ENCOUNTER 就诊号
assigning_authority| code | Who issued these numbers, when not the profile's default 发放机构
item_count         | code | Rows that the report has in this view 结果项数
request_no         | code | Number of the request 申请单号
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

VIEWS: Mapping[str, View] = MappingProxyType({view.name: view for view in (PATIENT, ENCOUNTER, LAB)})
"""The views by name."""
