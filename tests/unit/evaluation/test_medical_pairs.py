"""Answers that differ by a sign, a letter, a number, a unit, a side or a comparison.

Every pair goes through the strict scorer as a closed question, an open one and a multiple choice:
the wrong one scores 0 and the right one 1, in whatever equal way it is written.
"""

import pytest

from exgra_med.evaluation.metrics import closed, open_overlap
from exgra_med.evaluation.reading import words
from exgra_med.evaluation.tasks.multiple_choice import choose_strictly

# Right answer in its equal spellings, then wrong answers; `|` parts spellings.
TABLE = """
HER2+ | HER2 positive | HER2-positive | HER2 (+) | ＨＥＲ２＋ ; HER2- ; HER2
HER2- | HER2 negative | HER2− | HER2– | HER2 (-) ; HER2+ ; HER2
ER+ | ER positive ; ER-
PR- | PR negative ; PR+
EGFR+ | EGFR positive ; EGFR-
EGFR- and ALK+ | EGFR negative and ALK positive ; EGFR+ and ALK+ ; EGFR and ALK+
HER2- and PD-L1+ | HER2 negative and PD-L1 positive ; HER2+ and PD-L1-
Rh+ | Rh positive ; Rh-
O+ | O positive | O pos ; O- ; A+ ; B+ ; AB+
O- | O negative | O neg ; O+ ; A-
A+ | A positive ; A- ; AB+ ; O+
AB- | AB negative ; AB+ ; B-
ER+ / PR- | ER+/PR- ; ER- / PR+ ; ER+ / PR+
CD4+ | CD4 positive ; CD8+ ; CD4-
CD4+CD25+ | CD4+ CD25+ ; CD4+CD25- ; CD4-CD25+
Gram+ | Gram positive | gram-positive ; Gram-
HBsAg+ | HBsAg positive ; HBsAg-
3+ ; 2+ ; 1+ ; 3
++ ; + ; +++
++++ ; +++ ; ++
X-ray | Xray | x ray ; CT
+ve | positive ; -ve
<5 mm | < 5 mm | <5mm | less than 5 mm | ＜5 mm ; >5 mm ; 5 mm ; ≤5 mm
>5 mm | > 5 mm | more than 5 mm | greater than 5 millimeters ; <5 mm ; ≥5 mm
≥5 mm | >= 5 mm | at least 5 mm | no less than 5 mm ; ≤5 mm ; >5 mm ; <5 mm
≤5 mm | <=5 mm | at most 5 mm | not more than 5 mm | up to 5 mm ; ≥5 mm ; <5 mm
p<0.05 | p < 0.05 ; p>0.05 ; p<0.5 ; p<0.005
<38 °C | <38℃ | < 38 °C ; >38 °C ; <38 °F
+5 D | ＋5 D | plus 5 D | +5.0 D | +5 diopters ; -5 D ; 5 D
-5 D | −5 D | –5 D | minus 5 D | -5.00 dioptres ; +5 D ; 5 D
-2.5 | −2.5 ; 2.5 ; +2.5 ; -25
T-score -2.5 | T-score: −2.5 ; T-score 2.5 ; T-score -1.5
±2 mm | +/- 2 mm | +/-2 mm ; +2 mm ; -2 mm ; 2 mm
-5 to -3 | −5 to −3 ; 5 to 3 ; -5 to 3
1.5 cm | 1.50 cm | 1.5cm | 1,5 cm ; 15 cm ; 1.5 mm ; 0.15 cm ; 5.1 cm
0.5 mg | .5 mg | 0.50 mg ; 5 mg ; 0.05 mg ; 0.5 g
1,000 | 1000 | １０００ ; 100 ; 10,000 ; 1.000,5
12,500 cells | 12500 cells ; 1,250 cells
10⁵ | 10^5 ; 10^6 ; 105 ; 10⁻⁵
10⁻³ | 10^-3 ; 10^3 ; 10³
3-5 cm | 3–5 cm | 3 to 5 cm | 3 - 5 cm ; 35 cm ; 3, 5 cm ; 5-3 cm
2 x 3 cm | 2x3 cm | 2 × 3 cm | 2×3 cm ; 23 cm ; 3 x 2 cm
120/80 mmHg | 120 / 80 mmHg ; 80/120 mmHg ; 120/90 mmHg
1:100 | 1 : 100 ; 1:1000 ; 1:10
Gleason 3+4 | Gleason 3 + 4 ; Gleason 4+3 ; Gleason 3+3
50% | 50 % | 50 percent | ５０％ ; 50 ; 5% ; 60%
30° | 30 degrees ; 30 ; 60°
37 °C | 37°C | 37℃ ; 37 °F
5 mm | 5mm | 5 millimeters | five mm | 5.0 mm ; 5 cm ; 5 m ; 6 mm ; 5 nm
5 cm | 5 centimetres ; 5 mm
5 µg | 5 μg | 5 mcg | 5 micrograms | 5 ug ; 5 mg ; 5 g ; 5 kg ; 5 ng
5 mg | 5 milligrams ; 5 µg ; 5 g
5 mM | 5 mmol/L ; 5 mm ; 5 nM
5 mL | 5 ml | 5 cc ; 5 dL ; 5 L ; 5 µL
3 T | 3T | 3 Tesla ; 1.5 T ; 7 T
5 years | 5 y | five years ; 5 days ; 5 months ; 50 years
10 HU | 10HU ; -10 HU ; 100 HU
40 Gy | 40Gy ; 4 Gy ; 40 mGy
grade I | grade 1 | Grade-I ; grade II ; grade III ; grade IV
grade II | grade 2 | Grade Ⅱ ; grade I ; grade III
grade III | grade 3 ; grade II ; grade IV
stage IIIA | stage 3A | Stage IIIa ; stage IIIB ; stage IIA ; stage III
stage IV | stage 4 ; stage VI ; stage III
type I | type 1 ; type II
type 2 diabetes | type II diabetes ; type 1 diabetes
factor VIII | factor 8 ; factor VII ; factor IX
NYHA class II | NYHA class 2 ; NYHA class III
CN V | CN 5 ; CN VI ; CN VII
BI-RADS 4A | BI-RADS 4a ; BI-RADS 4B ; BI-RADS 4
Le Fort II | Le Fort 2 ; Le Fort III
T1 | t1 ; T2 ; T1c
T2 | t2 ; T1 ; T2*
T2* | T2 star | T2-star ; T2
T1N0M0 ; T1N1M0 ; T2N0M0
L4 ; L5 ; S1 ; T4
L4-L5 | L4/L5 | L4–L5 ; L5-S1 ; L3-L4
C5 ; C6 ; T5 ; L5
S1 | s1 ; S2
V1 ; V2 ; V6
vitamin A | Vitamin A | vitamin a ; vitamin ; vitamin B ; vitamin C ; vitamin D
vitamin C | Vitamin C ; vitamin A ; vitamin
vitamin B12 | Vitamin B12 ; vitamin B6 ; vitamin B1
vitamin A deficiency | Vitamin A deficiency ; vitamin deficiency ; vitamin D deficiency
hepatitis A | Hepatitis A ; hepatitis B ; hepatitis C ; hepatitis
hepatitis B | Hepatitis B ; hepatitis A ; hepatitis
influenza A | Influenza A ; influenza B ; influenza
hemophilia A | Hemophilia A ; hemophilia B ; hemophilia
group A streptococcus | Group A Streptococcus ; group B streptococcus ; streptococcus
blood group A | Blood group A ; blood group B ; blood group AB ; blood group O
B cell | B-cell ; T cell ; cell
T cell | T-cell ; B cell ; NK cell
type A | Type A ; type B
A-fib | a-fib ; V-fib ; fib
Stanford A | stanford a ; Stanford B
Child-Pugh A | Child-Pugh a ; Child-Pugh B ; Child-Pugh C
D-dimer | D dimer ; dimer
E. coli | E coli ; C. coli
C. difficile | C difficile ; C. albicans ; E. difficile
S. aureus ; S. epidermidis ; E. aureus
H. pylori ; H. influenzae ; E. pylori
protein C ; protein S
left | Left ; right ; both
right | RIGHT ; left
left lung | Left lung | the left lung ; right lung ; both lungs
right upper lobe ; left upper lobe ; right lower lobe ; right middle lobe
left kidney ; right kidney
anterior ; posterior
medial ; lateral
proximal ; distal
superior ; inferior
AP | ap ; PA
ventral ; dorsal
supine ; prone
hyperintense ; hypointense
hyperechoic ; hypoechoic
hypertension ; hypotension
hyperkalemia ; hypokalemia
tachycardia ; bradycardia
systolic ; diastolic
adduction ; abduction
ileum ; ilium
ureter ; urethra
benign | Benign ; malignant
↑ T2 signal ; ↓ T2 signal ; T2 signal
♂ ; ♀
XX ; XY
46,XX ; 46,XY ; 45,X
IL-6 | IL 6 ; IL-1 ; IL-10
CA 19-9 | CA 19–9 ; CA 125 ; CA 15-3
COVID-19 | COVID 19 ; COVID-91
pH 7.4 | pH 7.40 ; pH 7.2 ; pH 74
Na+ ; K+ ; Cl-
K+ ; Na+
Ca2+ | Ca²⁺ ; Ca+ ; Mg2+
HbA1c ; HbA2
IgA | iga ; IgG ; IgM
IgG ; IgA ; IgE
contrast | Contrast ; non-contrast
non-contrast | non contrast ; contrast
with contrast ; without contrast
two nodules | 2 nodules ; three nodules ; 3 nodules
10th rib ; 9th rib ; 11th rib
first metatarsal ; fifth metatarsal
左肺 ; 右肺
第5肋 | 第５肋 ; 第6肋
大于5厘米 ; 小于5厘米
T4 N1 ; T4 N2
G1 ; G2 ; G3
1/2 | ½ ; 1/3 ; 2/1
-1 SD | −1 SD ; +1 SD ; -2 SD
5-HT3 ; 5-HT4
alpha ; beta
α ; β
mid-zone | mid zone ; upper zone
0 ; 1 ; 00.5
100 mg/dL | 100 mg / dL ; 10 mg/dL ; 100 mmol/L
+ | positive ; -
- | negative | − ; +
"""
ROWS = [
    [[each.strip() for each in part.split(" | ")] for part in line.split(" ; ")]
    for line in TABLE.strip().splitlines()
]
PAIRS = [
    (right, spellings[0], wrong)
    for right, spellings, wrongs in (
        (row[0][0], row[0], [each for part in row[1:] for each in part]) for row in ROWS
    )
    for wrong in wrongs
]


def test_the_table_is_as_long_as_it_claims() -> None:
    assert len({(right, wrong) for right, _, wrong in PAIRS}) >= 250
    assert all(words(right) and words(wrong) for right, _, wrong in PAIRS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0])
def test_wrong_is_zero_and_right_is_all(row: list[list[str]]) -> None:
    spellings, wrongs = row[0], [each for part in row[1:] for each in part]
    right = spellings[0]
    for wrong in wrongs:
        for options in ((right, wrong), (wrong, right)):
            place = options.index(right)
            # Wrong: in no kind of question is it the reference.
            assert closed(wrong, right, given=options).hit == 0, (wrong, right)
            assert choose_strictly(wrong, options) == 1 - place, (wrong, right)
            for said in spellings:
                for answer in (said, f"**{said}**", f"The answer is {said}"):
                    assert closed(answer, right, given=options).hit == 1, (answer, right, wrong)
                    assert choose_strictly(answer, options) == place, (answer, right, wrong)
        assert open_overlap(wrong, right).exact_match == 0.0, (wrong, right)
        assert open_overlap(right, wrong).exact_match == 0.0, (wrong, right)
    for said in spellings:
        assert open_overlap(said, right) == (1.0, 1.0, 1.0, 1.0), (said, right)
        assert open_overlap(f"**{said}**", right).exact_match == 1.0, (said, right)


def test_the_older_normaliser_loses_a_good_part_of_the_table() -> None:
    """The older normaliser, which loses signs and single letters, tells fewer of them apart."""
    lost = [(right, wrong) for right, _, wrong in PAIRS if words(right, "1") == words(wrong, "1")]
    assert ("HER2+", "HER2-") in lost and ("<5 mm", ">5 mm") in lost and ("+5 D", "-5 D") in lost
    assert len(lost) > 60
