"""Formats of meters, read from recorded samples; windows, idle power and uncertainty, from known numbers."""

import pytest

from pocketlic.profiling.device.devices import HostDevice
from pocketlic.profiling.device.energy import (
    BatterySample,
    OdpmMeter,
    RaplMeter,
    Reading,
    find_meter,
    integrate,
    measure,
    parse_battery,
    parse_batterystats,
    parse_odpm,
    parse_perfetto,
    summarize,
)

# The shape of a Pixel's /sys/bus/iio/devices/iio:device0/energy_value.
ODPM = """t=349894
CH0(T=349894)[S10M_VDD_TPU], 5578756
CH1(T=349894)[VSYS_PWR_MODEM], 29110940
CH2(T=349894)[VSYS_PWR_RFFE], 3166046
CH5(T=349894)[S2M_VDD_CPUCL2], 30203502
CH7(T=349894)[S5M_VDD_INT], 31041010
"""

# The head of `dumpsys batterystats --checkin`.
BATTERYSTATS = """9,0,i,vers,36,200,AP4A.250205.002,AP4A.250205.002
9,0,i,uid,1000,android
9,0,l,bt,0,7231412,7231412,7231412,7231412,1766000000000,7231412,7231412,4386000,4301000,4355000,0
9,0,l,dc,12,13,3,9,512,401,0,0,0
9,0,l,pws,4386,498.2,505,519
"""


def test_odpm_rails_by_name():
    reading = parse_odpm(ODPM)
    assert reading.seconds == 349.894
    assert reading.joules["S2M_VDD_CPUCL2"] == 30.203502
    assert len(reading.joules) == 5
    for text in ("", "t=1\n", "CH0(T=1)[A], 3\n"):
        with pytest.raises(ValueError, match="ODPM"):
            parse_odpm(text)


@pytest.mark.parametrize(
    ("current", "status", "watts", "charging"),
    [
        ("-412500", "Discharging", 1.65, False),  # uA, negative while drained
        ("412500", "Discharging", 1.65, False),  # uA, positive while drained
        ("-412", "Discharging", 1.648, False),  # mA
        ("1500000", "Charging", -6.0, True),
        ("-3000", "Full", -12.0, True),
    ],
)
def test_battery_units_and_signs(current, status, watts, charging):
    sample = parse_battery({"current_now": current, "voltage_now": "4000000", "status": status}, 7.0)
    assert (sample.seconds, sample.charging) == (7.0, charging)
    assert sample.watts == pytest.approx(watts)
    with pytest.raises(ValueError, match="no current_now"):
        parse_battery({"voltage_now": "4000000"}, 0.0)


def test_battery_power_is_integrated_unless_charging():
    samples = [BatterySample(0, 1.0, False), BatterySample(2, 2.0, False), BatterySample(3, 0.0, False)]
    assert integrate(samples) == 4.0
    with pytest.raises(ValueError, match="charger"):
        integrate([*samples, BatterySample(4, -5.0, True)])


def test_batterystats():
    assert parse_batterystats(BATTERYSTATS) == 512
    with pytest.raises(ValueError, match="no discharge record"):
        parse_batterystats("9,0,i,vers,36\n")


def test_perfetto_rails():
    trace_pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    trace = trace_pb2.Trace()
    rails = trace.packet.add().power_rails
    for index, name in ((0, "S2M_VDD_CPUCL2"), (1, "S10M_VDD_TPU")):
        rails.rail_descriptor.add(index=index, rail_name=name, subsys_name="x", sampling_rate=1023)
    for ms, values in ((1000, (10_000_000, 500)), (1250, (10_400_000, 900))):
        packet = trace.packet.add()
        for index, value in enumerate(values):
            packet.power_rails.energy_data.add(index=index, timestamp_ms=ms, energy=value)
    first, last = parse_perfetto(trace.SerializeToString())
    assert (first.seconds, last.seconds) == (1.0, 1.25)
    assert last.joules["S2M_VDD_CPUCL2"] - first.joules["S2M_VDD_CPUCL2"] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no power rails"):
        parse_perfetto(trace_pb2.Trace().SerializeToString())
    with pytest.raises(ValueError, match="not a Perfetto trace"):
        parse_perfetto(b"\xff\xff\xff")


def test_idle_power_is_subtracted():
    before, after = Reading(10.0, {"cpu": 5.0, "tpu": 1.0}), Reading(12.0, {"cpu": 8.0, "tpu": 1.5})
    result = summarize("odpm", 1e-6, [0.4, 0.6], before, after, 10, 500_000, 0.01)
    assert result["total_mj"] == 3500
    assert result["idle_mw"] == 500
    assert result["net_mj"] == 2500
    assert result["mj_per_image"] == 250
    assert result["mj_per_megapixel"] == 500
    assert result["rails_mj"] == {"cpu": 3000, "tpu": 500}
    # The idle power's deviation over the window, and 10 ms of reading at 1.75 W.
    assert result["uncertainty_mj_per_image"] == pytest.approx(100 * (0.1414**2 * 4 + 0.0175**2) ** 0.5, rel=1e-3)
    still = summarize("odpm", 1e-6, [0.4], before, before, 10, 500_000, 0.01)
    assert still["available"] is False
    assert "did not move" in still["reason"]


def test_meters_on_files_like_the_kernels(tmp_path):
    odpm = tmp_path / "energy_value"
    odpm.write_text(ODPM)
    meter = OdpmMeter(HostDevice(), [str(odpm)])

    def work():
        odpm.write_text(ODPM.replace("349894", "350894").replace("30203502", "31203502"))
        return "done"

    result, energy = measure(meter, work, 5, 1_000_000, idle_s=0.01)
    assert result == "done"
    assert energy["total_mj"] == 1000
    assert energy["mj_per_image"] == 200

    rapl = tmp_path / "intel-rapl:0"
    rapl.mkdir()
    (rapl / "max_energy_range_uj").write_text("262143328850")
    counter = RaplMeter(HostDevice(), [str(rapl)])
    values = []
    for microjoules in (262143000000, 262143328000, 1000000):  # starts again at its maximum
        (rapl / "energy_uj").write_text(str(microjoules))
        values.append(counter.read().joules["intel-rapl:0"])
    assert values[1] - values[0] == pytest.approx(0.328)
    assert values[2] - values[1] == pytest.approx(1.00085)


def test_this_machine_has_a_meter_or_says_why():
    meter, reason = find_meter(HostDevice())
    assert (meter is None) == bool(reason)
