"""The standard views of who and where: patients, visits, beds, staff, departments."""

from fhir_adapters.view_contract.columns import view

PATIENT = view(
    "V_IOP_PATIENT",
    "One row per patient record 患者",
    ("patient_no",),
    """
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

ENCOUNTER = view(
    "V_IOP_ENCOUNTER",
    "One row per visit, outpatient or inpatient 就诊",
    ("visit_no",),
    """
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
moved_at           | time | When the patient came to this place, if later than start_at 转入时间
prior_ward_code    | code | Where the patient was before 转出病区代码
prior_room_no      | code | 转出病房号
prior_bed_no       | code | 转出床号
attending_code     | code | Attending physician 主治/接诊医师工号
attending_name     | text | 医师姓名
admission_type     | code | HL7 0007 入院类型
admit_source       | code | HL7 0023 入院来源
discharge_disposition | code | HL7 0112 离院方式
diagnosis_code     | code | ICD-10 of the main diagnosis; leave it out where V_IOP_DIAGNOSIS is given 主要诊断编码
diagnosis_name     | text | 主要诊断名称
reason             | text | Chief complaint 主诉
""",
)

BED = view(
    "V_IOP_BED",
    "One row per bed 床位",
    ("facility", "ward_code", "room_no", "bed_no"),
    """
ward_code*         | code | As in V_IOP_ENCOUNTER 病区代码
bed_no*            | code | As in V_IOP_ENCOUNTER 床号
facility           | code | As in V_IOP_ENCOUNTER 院区
ward_name          | text | 病区名称
room_no            | code | As in V_IOP_ENCOUNTER 病房号
assigning_authority| code | Who issued the department codes, when not the profile's default 发放机构
bed_status         | code | HL7 0116 (C H I K O U) or 空床 预占 占床 消毒 维修 床位状态
bed_kind           | code | 普通 加床 包床 抢救 …, code or name 床位类别
sex_limit          | code | 1 men only, 2 women only 性别限制
dept_code          | code | Department that the bed belongs to 所属科室代码
dept_name          | text | 所属科室名称
lent_dept_code     | code | Department that it is lent to 借用科室代码
lent_dept_name     | text | 借用科室名称
description        | text | 备注
active_flag        | code | 1 in use (default), 0 not 有效标志
""",
)

STAFF = view(
    "V_IOP_STAFF",
    "One row per member of staff and department 职工",
    ("staff_no",),
    """
staff_no*          | code | As in the columns of physicians and nurses of the other views 工号
name*              | text | 姓名
assigning_authority| code | Who issued staff_no and dept_code, when not the profile's default 发放机构
sex                | code | GB/T 2261.1, M/F or 男/女 性别
birth_date         | time | 出生日期
role               | code | 医师 护士 药师 技师 …, or a code of FHIR's practitioner-role 岗位
title              | code | 专业技术职务代码或名称
license_no         | code | 执业证书编号
specialty          | text | 专业
dept_code          | code | 科室代码
dept_name          | text | 科室名称
phone              | text | 电话
mobile             | text | 手机
start_at           | time | In this post since 任职开始
end_at             | time | In this post until 任职结束
active_flag        | code | 1 in service (default), 0 not 有效标志
""",
)

DEPARTMENT = view(
    "V_IOP_DEPARTMENT",
    "One row per department or ward 科室",
    ("dept_code",),
    """
dept_code*         | code | As in the other views 科室代码
dept_name*         | text | 科室名称
assigning_authority| code | Who issued dept_code, when not the profile's default 发放机构
short_name         | text | 简称
parent_code        | code | dept_code of the department it is part of 上级科室代码
dept_kind          | code | 临床 医技 行政 病区 …, code or name 科室类别
phone              | text | 电话
address            | text | 位置
active_flag        | code | 1 in use (default), 0 not 有效标志
""",
)
